r"""A process of your own: the flow that swirls

Many processes follow one path. For an antisymmetric matrix $A$ the field $A\,\nabla \log p_t$ turns along the lines of equal density, and carries the law nowhere, since

$$
\nabla \cdot \bigl(p_t\, A\, \nabla \log p_t\bigr) = \nabla \cdot \bigl(A\, \nabla p_t\bigr) = 0 .
$$

Added to a flow it makes another process on the same path, in a dozen lines: what it regresses, and its generator, affine in that. The checks, every solver, training and the
oracle then know it. Source of the idea: "A Complete Recipe for Stochastic Gradient MCMC" (Ma et al., 2015), https://arxiv.org/abs/1506.04696.
"""

import torch
from picture import BLUE, GREY, ORANGE, claim, panels, plane, save, size

import genmatch as gm
from genmatch.generators import Drift
from genmatch.tensors import expand

N, STEPS = size(700, 200), size(120, 40)


class Swirl(gm.MarkovProcess):
    """A flow in the plane that also turns; a network predicts the data."""

    kinds = frozenset({"drift"})

    def __init__(self, path, speed):
        self.path, self.flow, self.speed = path, gm.Flow(path, "data"), speed

    def target(self, x, t, x1, *, x0=None):
        return x1

    def generator(self, output, x, t):
        velocity, score = (self.flow.predict(output, x, t, kind) for kind in ("velocity", "score"))
        turned = torch.stack([-score[:, 1], score[:, 0]], 1)
        return Drift(velocity + self.speed * expand(self.path.schedule.sigma(t) ** 2, x) * turned)


path = gm.paths.Gaussian((2,))
report = gm.check_process(Swirl(path, 6.0), level=size("full", "quick"))
print(report)
claim("identities of generator matching that it breaks", len(report.failures), below=1)

data = gm.data.GaussianMixture(torch.tensor([[1.4, 0.0], [-0.7, 1.2], [-0.7, -1.2]]), torch.full((3,), 0.12)).sample(
    size(300, 100), rng=torch.Generator().manual_seed(0)
)
times = torch.linspace(0, 1, STEPS + 1)
noise = path.source(N, rng=torch.Generator().manual_seed(1))
figure, axes = panels(3, width=2.8, height=3.1, title="Three processes, one path: where they go differs, the law does not")
for axis, colour, speed in zip(axes, (GREY, BLUE, ORANGE), (0.0, 6.0, -18.0), strict=True):
    process = Swirl(path, speed)
    states = gm.simulate(process, gm.oracle(process, data), noise, times, solver="heun").states
    plane(axis, states[-1], side=2.2, title=f"speed {speed:g}" if speed else "the flow", colour=colour, dots=2)
    tracks = torch.stack(states)[:, :10]
    axis.plot(tracks[:, :, 0], tracks[:, :, 1], color="black", linewidth=0.5)
save(figure)
