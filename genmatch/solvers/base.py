"""The interface of a solver: how a process moves from one time of the grid to the next.

A solver declares facts that are tested: its order, how many network calls a step takes, which kinds of generator terms it
can simulate, and which optional methods of the process it uses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor

from genmatch.processes.base import MarkovProcess, Predict
from genmatch.reprs import described
from genmatch.tensors import State

__all__ = ["DRIFT", "JUMP", "Predict", "Solver"]

DRIFT = frozenset({"drift"})
JUMP = frozenset({"jump"})


class Solver(ABC):
    """One way to simulate a process.

    Class attributes are declarations: `order` is the global order of convergence in the step (0 if the error does not fall
    with the step, infinite if there is none), `calls` the number of network calls a step (None if it takes as many as it needs), `kinds`
    the kinds of generator terms that it can simulate (None for any, those of other packages too), `needs` the optional methods of the
    process that it uses, by name: those here and any that a process of another package has. A solver that `finishes` takes the last step into t = 1 itself. One that is `sparse` reads outputs only as
    `output[mask]`, itself or by `transition`, `finish` and `posterior`.
    One that is `rowwise` asks as `predict(x, t, rows)`, with states and times of all and a mask, for the outputs of those rows alone.
    """

    order: float
    calls: int | None
    kinds: frozenset[str] | None = None
    needs: tuple[str, ...] = ()
    finishes: bool = False
    sparse: bool = False
    rowwise: bool = False

    __repr__ = described

    def start(self) -> Solver:
        """The solver that takes the steps of one trajectory; with a memory of its own if it has one, else itself."""
        return self

    @abstractmethod
    def step(self, process: MarkovProcess, predict: Predict, x: State, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> State:
        """The state at `s` from the state `x` at `t`.

        Args:
            process: what is simulated.
            predict: the network; every call is counted.
            x: states, (B, ...).
            t: the present time in [0, 1), float64, (B,).
            s: the next time. The last step, to s = 1, is taken by `simulate` with the process's `finish`, where there is
                one and the solver does not finish by itself: a solver never evaluates a generator at t = 1.
            rng: source of randomness.

        Raises:
            GenmatchError: if the process has not what the solver needs there; `Unfinished` beyond a limit of network calls.
        """

    def simulates(self, kinds: frozenset[str]) -> frozenset[str]:
        """Those of `kinds` that it can simulate."""
        return kinds if self.kinds is None else kinds & self.kinds

    def misfit(self, process: MarkovProcess) -> str | None:
        """Why this solver cannot simulate `process`; None if it can."""
        name = type(self).__name__
        if undeclared := [fact for fact in ("order", "calls") if not hasattr(self, fact)]:
            return f"{name} lacks {_words(f'`{fact}`' for fact in undeclared)}; declare class attributes, such as `order = 1` and `calls = 1`"
        if self.calls is not None and (not isinstance(self.calls, int) or self.calls < 1):
            return f"{name} declares {self.calls!r} `calls` a step; they are a positive integer, or None if it takes as many as it needs"
        if process.stationary:
            return f"{type(process).__name__} is a corrector, which generates nothing by itself; make it a term of a Superposition"
        if self.kinds is not None and (extra := sorted(process.kinds - self.kinds)):
            return f"{name} simulates {_words(self.kinds)} only, and {type(process).__name__} has {_words(extra)} too"
        if missing := [need for need in self.needs if not process.supports(need)]:
            return f"{name} needs {_words(f'`{need}`' for need in missing)}, which {process} does not define"
        return None


def _words(names: Iterable[str]) -> str:
    return " and ".join(sorted(names))
