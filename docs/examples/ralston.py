"""Ralston's method: the Runge-Kutta method of order two with the smallest error bound.

Source: "Runge-Kutta Methods with Minimum Error Bounds" (Ralston, 1962),
https://doi.org/10.1090/S0025-5718-1962-0150954-0.
"""

from genmatch.solvers import Solver
from genmatch.tensors import expand


class Ralston(Solver):
    """Velocities now and two thirds of a step ahead; order 2, two calls a step."""

    order = 2
    calls = 2
    kinds = frozenset({"drift"})

    def step(self, process, predict, x, t, s, *, rng=None):
        h, ahead = expand(s - t, x), t + (s - t) * 2 / 3
        now = process.generator(predict(x, t), x, t).velocity
        later = x + h * 2 / 3 * now
        then = process.generator(predict(later, ahead), later, ahead).velocity
        return x + h / 4 * (now + 3 * then)
