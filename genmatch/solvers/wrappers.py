r"""Solvers that add something to another one: a corrector after each step, or the most likely tokens at the end.

A corrector moves the state at one time without changing its law p_s. *Gibbs* draws one token given the others,

    x_j <- c,   c(v) = (1 - kappa) p_0(v) + kappa q(v),   q(v) = p(x1_j = v given the other tokens),

which leaves p_s exactly as it is. *Forward-backward* noises the state back over the last step, which needs no network, and takes
the step again: all tokens at once, with an error of the order of the step. With an exact network neither gains anything; they
help one that errs.

Source: "Generative Flows on Discrete State-Spaces" (Campbell et al., 2024), https://arxiv.org/abs/2402.04997, section 3.2;
"Informed Correctors for Discrete Diffusion Models" (Zhao et al., 2024), https://arxiv.org/abs/2407.21243 (Gibbs).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, positive_integer
from genmatch.logits import draw_where, read
from genmatch.processes.base import MarkovProcess
from genmatch.reprs import described
from genmatch.solvers.base import JUMP, Predict, Solver
from genmatch.solvers.chains import chain_of
from genmatch.solvers.general import Exact
from genmatch.tensors import uniforms


class Corrector(ABC):
    """A move at one time of the grid that keeps the law there. `calls` and `needs` are declared as those of a solver."""

    __repr__ = described

    calls: int = 1
    needs: tuple[str, ...] = ()
    sparse: bool = True

    @abstractmethod
    def correct(self, solver: Solver, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None) -> Tensor:
        """The corrected states at `s`, to which `solver` has brought the states `x` from the time `t`."""


class Gibbs(Corrector):
    """Draws tokens at random positions, one after another, each given the others; exact.

    Args:
        moves: how many tokens a step, one network call each.
    """

    needs = ("cavity", "hidden", "finish")
    sparse = False

    def __init__(self, moves: int = 1) -> None:
        self.calls = positive_integer(moves, "moves")

    def correct(self, solver: Solver, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None) -> Tensor:
        chain = chain_of(process)
        for _ in range(self.calls):
            keys = uniforms(x, rng=rng).flatten(1)
            where = (keys == keys.amax(-1, keepdim=True)).view_as(x)
            asked = chain.hidden(x, where)
            drawn = draw_where(chain.cavity(predict(asked, s), asked, s), where, uniforms(x, rng=rng))
            noised = process.path.sample(torch.zeros_like(x).masked_scatter(where, drawn), s, rng=rng)
            x = torch.where(where, noised, x)
        return x


class ForwardBackward(Corrector):
    """Noises the state back over the step and takes it again with the solver; the calls are the solver's."""

    needs = ("renoise",)

    def correct(self, solver: Solver, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None) -> Tensor:
        return solver.step(process, predict, chain_of(process).renoise(x, s, t, rng=rng), t, s, rng=rng)


class Corrected(Solver):
    """A solver with a corrector after each of its steps; the last step, into t = 1, is not corrected.

    Args:
        solver: takes the steps, of a fixed number of calls.
        corrector: moves the state at the end of each.

    Raises:
        GenmatchError: if they are not a solver of a fixed number of calls and a corrector.

    Example:
        >>> import genmatch as gm
        >>> solver = Corrected(Exact(), Gibbs(moves=2))
        >>> solver.order, solver.calls, solver.misfit(gm.CTMC(gm.paths.Mixture((3,), vocab_size=5))) is None
        (1, 3, True)
    """

    def __init__(self, solver: Solver, corrector: Corrector) -> None:
        if not isinstance(solver, Solver) or not isinstance(corrector, Corrector) or solver.calls is None:
            raise GenmatchError(f"expected a Solver of a fixed number of calls and a Corrector, got {solver!r} and {corrector!r}.")
        self.solver, self.corrector = solver, corrector
        self.order, self.calls = solver.order, solver.calls + corrector.calls
        self.kinds, self.needs = solver.simulates(JUMP), (*solver.needs, *corrector.needs)
        self.sparse = solver.sparse and corrector.sparse

    def start(self) -> Corrected:
        return Corrected(self.solver.start(), self.corrector)

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        y = self.solver.step(process, predict, x, t, s, rng=rng)
        return self.corrector.correct(self.solver, process, predict, y, t, s, rng=rng)


class ArgmaxFinal(Solver):
    """The last step takes the most likely token of each position instead of drawing one: a different, narrower law.

    Args:
        solver: takes the other steps; `Exact` by default.

    Raises:
        GenmatchError: if `solver` is not one.
    """

    kinds = JUMP
    finishes = True

    def __init__(self, solver: Solver | None = None) -> None:
        self.solver = Exact() if solver is None else solver
        if not isinstance(self.solver, Solver):
            raise GenmatchError(f"`solver` must be a Solver, got {solver!r}; pass e.g. `gm.solvers.get('exact')`.")
        self.order, self.calls, self.kinds = 0, self.solver.calls, self.solver.simulates(JUMP)
        self.needs, self.sparse = (*self.solver.needs, "posterior", "is_noise"), self.solver.sparse

    def start(self) -> ArgmaxFinal:
        return ArgmaxFinal(self.solver.start())

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        if bool((s < 1).all()):
            return self.solver.step(process, predict, x, t, s, rng=rng)
        chain = chain_of(process)
        logits, where = chain.posterior(predict(x, t), x, t), chain.is_noise(x)
        return x.masked_scatter(where, read(logits, where, lambda part: part.argmax(-1)))


def gibbs() -> Corrected:
    """The exact step, then one token drawn given the others, which keeps the law; order 1, two calls a step."""
    return Corrected(Exact(), Gibbs())


def forward_backward() -> Corrected:
    """The exact step, noised back and taken again; order 1, two calls a step."""
    return Corrected(Exact(), ForwardBackward())
