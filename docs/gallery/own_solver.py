r"""A solver of your own: Kutta's method of order three

A solver is one class with a `step` and what it declares. Kutta's third-order method takes

$$
k_1 = u_t(x), \quad k_2 = u_{t + h/2}\bigl(x + \tfrac h2 k_1\bigr), \quad k_3 = u_{t + h}\bigl(x - h k_1 + 2 h k_2\bigr), \qquad
x_s = x + \tfrac h6 (k_1 + 4 k_2 + k_3) .
$$

`gm.check_solver` measures the order where the law is known, and the registry offers it for every process that is a drift. Source: "Beitrag zur näherungsweisen Integration totaler
Differentialgleichungen" (Kutta, 1901).
"""

import math

import torch
from picture import COLOURS, claim, panels, save, size

import genmatch as gm
from genmatch.tensors import expand

N, CALLS = size(256, 32), size((12, 24, 48, 96, 192, 384), (24, 96))


@gm.solvers.register("kutta-3")
class Kutta(gm.solvers.Solver):
    """Kutta's method; order 3, three calls a step."""

    order, calls, kinds = 3, 3, frozenset({"drift"})

    def step(self, process, predict, x, t, s, *, rng=None):
        def velocity(x, t):
            return process.generator(predict(x, t), x, t).velocity

        h = expand(s - t, x)
        k1 = velocity(x, t)
        k2 = velocity(x + h / 2 * k1, (t + s) / 2)
        k3 = velocity(x - h * k1 + 2 * h * k2, s)
        return x + h / 6 * (k1 + 4 * k2 + k3)


claim("declarations that the check finds broken", len(gm.check_solver("kutta-3").failures), below=1)

flow = gm.Flow(gm.paths.Gaussian((2,), dtype=torch.float64))
model = gm.oracle(flow, torch.tensor([[-1.0, 0.3], [1.0, -0.2], [0.4, 1.2]], dtype=torch.float64))
x0 = flow.path.source(N, rng=torch.Generator().manual_seed(0))


def end(solver, steps):
    return gm.simulate(flow, model, x0, torch.linspace(0, 0.8, steps + 1), solver=solver).states[-1]


truth = end("rk4", size(1000, 250))
figure, (axis,) = panels(1, width=5.6, height=3.4, title="Twenty lines make a solver, and its order is what it says")
slopes = {}
for colour, name in zip(COLOURS, ("euler", "kutta-3", "heun", "rk4"), strict=False):
    steps = [calls // gm.solvers.get(name).calls for calls in CALLS]
    errors = [float((end(name, n) - truth).norm(dim=1).mean()) for n in steps]
    slopes[name] = math.log(errors[-2] / errors[-1]) / math.log(steps[-1] / steps[-2])
    axis.loglog(CALLS, errors, "o-", color=colour, markersize=4, linewidth=2.4 if name == "kutta-3" else 1.2)
    axis.text(CALLS[-1] * 1.08, errors[-1], f"{name}: slope {slopes[name]:.2f}", color=colour, va="center", fontsize=9)
claim("distance of the measured order from 3", abs(slopes["kutta-3"] - 3), below=0.25)
axis.set(
    xlabel="network calls",
    ylabel="mean error at t = 0.8",
    xlim=(CALLS[0] * 0.9, CALLS[-1] * 4),
)
axis.set_xticks(CALLS, [str(calls) for calls in CALLS])
axis.minorticks_off()
save(figure)
