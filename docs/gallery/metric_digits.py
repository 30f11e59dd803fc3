r"""A metric path: grey levels that draw near

Grey levels have an order, which a mask or the uniform law ignores. The metric path moves each pixel towards its level through levels that are near to it,

$$
p_t(x \mid z) \propto e^{-\beta_t |x - z|}, \qquad \beta_0 = 0,\ \beta_1 = \infty ,
$$

so that a digit shows early. Below the paths: digits drawn along the metric path, with the exact network of the training images.
"""

import torch
from picture import claim, panels, save, size

import genmatch as gm

DATA, N, STEPS = size(1297, 60), size(16, 4), size(64, 12)

view = gm.data.get("digits").view("tokens")
data = view.train[:DATA]
metric = gm.paths.Metric((64,), distance="absolute", vocab_size=17)
paths = {"uniform": gm.paths.Mixture((64,), vocab_size=17, source="uniform"), "metric": metric}
process = gm.CTMC(metric)
rng = torch.Generator().manual_seed(3)
times = torch.linspace(0, 1, STEPS + 1)
run = gm.simulate(process, gm.oracle(process, data), process.path.source(N, rng=rng), times, rng=rng)
nearest = (run.states[-1].unsqueeze(1) != data).sum(-1).amin(1)
claim("pixels in which a sample differs from the nearest training image", nearest.max(), below=size(6, 24))

# The mean distance of a pixel from its level: what the path's table says, and what its draws say.
shown = torch.linspace(0, 1, 7).double()
digit, many = data[7], size(4000, 1000)
for t in shown[1:-1]:
    drawn = (metric.sample(digit.repeat(many, 1), t.expand(many), rng=rng) - digit).abs().double().mean(0)
    exact = (metric.law(digit, t.expand(64)) * metric.distance[digit]).sum(-1)
    claim(f"t = {t:.2f}: error of the mean distance, grey levels", (drawn - exact).abs().max(), below=5 * 5 / many**0.5)

figure, axes = panels(7, 3, width=1.2, height=1.3, title="Along a metric path a digit shows early: grey levels draw near")
for row, (name, path) in enumerate(paths.items()):
    for axis, t in zip(axes[7 * row :], shown, strict=False):
        axis.imshow(16 - path.sample(digit.unsqueeze(0), t.reshape(1), rng=rng).reshape(8, 8).numpy(), cmap="gray", vmin=0, vmax=16)
        axis.set_title(f"t = {t:.2f}" if row == 0 else "", fontsize=9)
    axes[7 * row].set_ylabel(name, fontsize=9)
for axis, t in zip(axes[14:], shown, strict=True):
    axis.imshow(16 - run.states[round(float(t) * STEPS)][0].reshape(8, 8).numpy(), cmap="gray", vmin=0, vmax=16)
axes[14].set_ylabel("a sample", fontsize=9)
for axis in axes:
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
save(figure)
