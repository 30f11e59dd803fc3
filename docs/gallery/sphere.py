r"""Airports: a flow on the sphere

On a sphere straight lines are great circles, and a velocity is a tangent vector. The path moves from a uniform point to an airport along the geodesic, and the network
learns the mean tangent,

$$
u_t(x) = \mathbb E\Bigl[\tfrac{\dot\kappa_t}{1 - \kappa_t}\,\log_x(x_1) \,\Big|\, X_t = x\Bigr], \qquad X_s = \exp_x\bigl((s - t)\,u_t(x)\bigr) ,
$$

so a state never leaves the sphere, whatever the network says.
"""

import torch
from picture import BLACK, BLUE, ORANGE, claim, panels, save, size

import genmatch as gm
from genmatch.data.airports import degrees

STEPS, N = size(1500, 50), size(2000, 200)

data = gm.data.get("airports").view("sphere")
process = gm.Flow(gm.paths.Geodesic(gm.spaces.Sphere(2)))
torch.manual_seed(0)
network = gm.nn.MLP(process.space, process.output_shape, width=size(192, 48), depth=4)
model = gm.train(process, network, data.train, steps=STEPS, batch_size=256, lr=2e-3, seed=0).model

start = process.path.source(N, rng=torch.Generator().manual_seed(0))
run = gm.simulate(process, model, start, torch.linspace(0, 1, 33))
off = max(float((x.norm(dim=1) - 1).abs().max()) for x in run.states)
claim("largest distance from the sphere, at any time", off, below=1e-5)
near = torch.cdist(data.test, data.train).amin(1).mean()  # how near airports are to other airports
found = torch.cdist(run.states[-1], data.train).amin(1).mean()
claim("mean distance to an airport, over that of other airports", found / near, below=size(4, 12))

figure, axes = panels(2, width=4.4, height=2.7, title="A flow on the sphere learns where the airports are")
for axis, points, name in ((axes[0], data.test[:2000], "airports, held out"), (axes[1], run.states[-1][:2000], "samples, and how eight of them came there")):
    latitude, longitude = degrees(points).unbind(1)
    axis.scatter(longitude, latitude, s=1.5, color=BLUE, alpha=0.7, linewidths=0)
    axis.set(xlim=(-180, 180), ylim=(-90, 90), aspect="equal", xticks=[-180, -90, 0, 90, 180], yticks=[-90, 0, 90])
    axis.set_title(name, fontsize=9)
    axis.tick_params(labelsize=7)
    axis.set_xlabel("longitude", fontsize=8)
axes[0].set_ylabel("latitude", fontsize=8)
for k in range(8):
    latitude, longitude = degrees(torch.stack([x[k] for x in run.states])).unbind(1)
    longitude = torch.where(torch.cat([longitude.new_zeros(1), longitude.diff()]).abs() > 180, torch.nan, longitude)
    axes[1].plot(longitude, latitude, color=ORANGE, linewidth=1)
    axes[1].plot(longitude[-1], latitude[-1], ".", color=BLACK, markersize=4)
save(figure)
