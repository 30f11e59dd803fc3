r"""Superpositions: several processes that follow one path, mixed.

If every $\mathcal L^{(i)}$ carries the same $p_t$ forward, so does $\sum_i w_i \mathcal L^{(i)}$ for weights $w_i \ge 0$ that
sum to one; they may depend on time, not on the state. A flow and a diffusion half and half move at half the velocity each, with
half the noise. Correctors, whose generators leave $p_t$ as it is, may be added with any weights.

Source: "Generator Matching" (Holderrieth et al., ICLR 2025), https://arxiv.org/abs/2410.20587, section 5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.generators import Generator
from genmatch.logits import draw_categorical
from genmatch.processes.base import LogWeight, MarkovProcess
from genmatch.spaces import Space
from genmatch.tensors import State, leaves, tree_map

Weight = float | Callable[[Tensor], Tensor]
"""A number, or a function of times (B,) with values (B,)."""


class Superposition(MarkovProcess):
    """A weighted sum of processes on one path.

    Args:
        processes: processes whose paths are equal.
        weights: one for each, non-negative, summing to one at every time over all processes that are not correctors.
        heads: "separate", a head of the network for each process, with outputs in a dictionary; or "shared", one output for
            all, which must regress the same statistic.

    Raises:
        GenmatchError: if the paths differ, the weights do not sum to one, or shared heads would mix statistics.

    Example:
        >>> import genmatch as gm
        >>> path = gm.paths.Gaussian((2,))
        >>> both = Superposition([gm.Flow(path, "data"), gm.Diffusion(path)], weights=[0.5, 0.5], heads="shared")
        >>> both.output_shape, sorted(both.kinds)
        ((2,), ['brownian', 'drift'])
    """

    def __init__(self, processes: Sequence[MarkovProcess], weights: Sequence[Weight], heads: str = "separate") -> None:
        if not processes or len(processes) != len(weights):
            raise GenmatchError(f"a superposition needs one weight for each process, got {len(processes)} processes and {len(weights)} weights.")
        self.processes = tuple(processes)
        self.weights = tuple(weights)
        self.path = processes[0].path
        self.t_min = max(process.t_min for process in processes)
        self.names = _names(processes)
        if different := [str(process.path) for process in processes if process.path.signature != self.path.signature]:
            raise GenmatchError(f"superposed processes must follow one path, got {self.path} and {different[0]}.")
        self._movers = [i for i, process in enumerate(processes) if not process.stationary]
        self._check_weights()
        _ = self.data_space
        if heads not in ("separate", "shared"):
            raise GenmatchError(f"`heads` must be 'separate' or 'shared', got {heads!r}.")
        self.heads = heads
        if heads == "shared":
            self._check_statistic()

    def __repr__(self) -> str:
        weights = [weight if not callable(weight) else getattr(weight, "__qualname__", "w(t)") for weight in self.weights]
        return f"Superposition({list(self.processes)}, weights={weights}, heads={self.heads!r})"

    @property
    def kinds(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset().union(*(process.kinds for process in self.processes))

    @property
    def data_space(self) -> Space:
        """Where the data live: a process that asks for less than the path, such as levels, decides.

        Raises:
            GenmatchError: if two ask for different spaces.
        """
        narrow = list(dict.fromkeys(process.data_space for process in self.processes if process.data_space != self.path.data_space))
        if len(narrow) > 1:
            raise GenmatchError(f"superposed processes must lead to the same data, got {narrow[0]} and {narrow[1]}.")
        return narrow[0] if narrow else self.path.data_space

    @property
    def output_shape(self) -> Any:
        return self._join(lambda process, _: process.output_shape, None)

    @property
    def caveats(self) -> Mapping[str, str]:
        known = {check: reason for process in self.processes for check, reason in process.caveats.items()}
        if self.heads == "separate" and len(self.processes) > 1:
            known.setdefault("finish-mean", "each sample ends as one of the processes does, of which every head's statistic is asked.")
        return known

    def supports(self, ability: str) -> bool:
        """What every process but the correctors supports; a transition only without correctors, which act through the generator alone."""
        if ability == "transition" and len(self._movers) < len(self.processes):
            return False
        return super().supports(ability) and all(self.processes[i].supports(ability) for i in self._movers)

    def weights_at(self, t: Tensor) -> Tensor:
        """The weights at times `t`, (B,), float64, (B, number of processes)."""
        columns = [weight(t) if callable(weight) else torch.full_like(t, float(weight)) for weight in self.weights]
        return torch.stack([torch.as_tensor(column, dtype=torch.float64) for column in columns], -1)

    def target(self, x: State, t: Tensor, x1: State, *, x0: State | None = None) -> State:
        """The target of each term; one for all, if they share a head."""
        return self._join(lambda process, _: process.target(x, t, x1, x0=x0), None)

    def generator(self, output: State, x: State, t: Tensor) -> Generator:
        weights = self.weights_at(t)
        terms = [weights[:, i] * process.generator(part, x, t) for i, (process, part) in enumerate(self._parts(output))]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def natural_at(self, target: State, x: State, t: Tensor) -> State:
        return self._join(lambda process, value: process.natural_at(value, x, t), target)

    def mean_at(self, output: State, x: State, t: Tensor) -> State:
        return self._join(lambda process, value: process.mean_at(value, x, t), output)

    def average(self, targets: State, weights: Tensor) -> State:
        return self._join(lambda process, value: process.average(value, weights), targets)

    def tilted(self, output: State, x: State, t: Tensor, log_weight: LogWeight) -> State:
        """Of each head: all follow one law."""
        return self._join(lambda process, value: process.tilted(value, x, t, log_weight), output)

    @property
    def tilt_misfit(self) -> str | None:
        asked = self.processes[:1] if self.heads == "shared" else self.processes
        return next((process.tilt_misfit for process in asked if process.tilt_misfit), None)

    def divergence(self, target: State, output: State, x: State, t: Tensor) -> Tensor:
        """The sum of the heads' divergences, (B,)."""
        if self.heads == "shared":
            return self.processes[0].divergence(target, output, x, t)
        return torch.stack([process.divergence(target[name], output[name], x, t) for name, process in zip(self.names, self.processes, strict=True)]).sum(0)

    def finish_nats(self, output: State, x: State, t: Tensor, x1: State) -> Tensor:
        """One process, drawn by its weight, takes the last step.

        Raises:
            GenmatchError: if one process gives data a probability and another a density.
        """
        movers = self._moving(output)
        if any(process.data_space != self.data_space for process, _ in movers):
            raise GenmatchError(f"the parts of {self} read data off a state in different units, as levels and as vectors; bound a part alone.")
        nats = torch.stack([process.finish_nats(part, x, t, x1) for process, part in movers], -1)
        return -(self.weights_at(t)[:, self._movers].log() - nats).logsumexp(-1)

    def transition(self, output: State, x: State, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> State:
        """One process, drawn by its weight, takes the whole step.

        Each keeps the law of the path exactly, so the mixture does; and for a small step it has the generator of the sum.

        Raises:
            GenmatchError: if one process has no such draw, or is a corrector.
        """
        if not self.supports("transition"):
            return super().transition(output, x, t, s, rng=rng)
        return self._choose([process.transition(part, x, t, s, rng=rng) for process, part in self._moving(output)], t, rng)

    def finish(self, output: State, x: State, t: Tensor, *, rng: torch.Generator | None = None) -> State:
        """One process, drawn by its weight, draws the data; correctors lead to none."""
        return self._choose([process.finish(part, x, t, rng=rng) for process, part in self._moving(output)], t, rng)

    def _choose(self, ends: list[State], t: Tensor, rng: torch.Generator | None) -> State:
        """For each sample the end of one process, drawn by the weights at `t`; `ends` are those of the processes that are not correctors, in order."""
        chosen = draw_categorical(self.weights_at(t)[:, self._movers].log(), rng=rng)
        rows = torch.arange(len(chosen), device=chosen.device)
        return tree_map(lambda *values: torch.stack(values)[chosen, rows], *ends)

    def _parts(self, output: State) -> list[tuple[MarkovProcess, State]]:
        """Each process with the output that is its own."""
        if self.heads == "shared":
            return [(process, output) for process in self.processes]
        return [(process, output[name]) for name, process in zip(self.names, self.processes, strict=True)]

    def _moving(self, output: State) -> list[tuple[MarkovProcess, State]]:
        """The same without the correctors."""
        parts = self._parts(output)
        return [parts[i] for i in self._movers]

    def _join(self, function: Callable[[MarkovProcess, Any], Any], values: Any) -> Any:
        """`function` of the only head, or of each head with its value, by name."""
        if self.heads == "shared":
            return function(self.processes[0], values)
        return {name: function(process, None if values is None else values[name]) for name, process in zip(self.names, self.processes, strict=True)}

    def _check_weights(self) -> None:
        t = torch.linspace(self.t_min, 1, 201, dtype=torch.float64)[:-1]
        weights = self.weights_at(t)
        if weights.shape != (len(t), len(self.processes)) or not bool((weights >= 0).all()) or not bool(weights.isfinite().all()):
            raise GenmatchError(
                f"`weights` must be non-negative numbers or functions of t with shape (B,), got values from {weights.min()} to {weights.max()}."
            )
        moving = weights[:, self._movers].sum(-1)
        gap, where = (moving - 1).abs().max(0)
        if float(gap) > 1e-9:
            raise GenmatchError(
                f"`weights` must sum to 1 at every time over all processes but correctors, got {float(moving[where]):.6g} at t = {float(t[where]):.3g}: "
                "otherwise the mixture does not follow the path; divide by the sum."
            )

    def _check_statistic(self) -> None:
        rng = torch.Generator().manual_seed(0)
        x1 = self.data_space.random(4, rng=rng)
        t = torch.full((4,), 0.5, dtype=torch.float64)
        x = self.path.sample(x1, t, x0=self.path.start(x1, rng=rng), rng=rng)
        first, *others = [leaves(process.target(x, t, x1)) for process in self.processes]
        for process, other in zip(self.processes[1:], others, strict=True):
            same = all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(first, other, strict=True))
            if not same or process.output_shape != self.processes[0].output_shape:
                raise GenmatchError(f"shared heads need one statistic, and {self.processes[0]} and {process} regress different ones; pass heads='separate'.")


def _names(processes: Sequence[MarkovProcess]) -> tuple[str, ...]:
    """The class of each process in lower case, numbered where it occurs more than once."""
    plain = [type(process).__name__.lower() for process in processes]
    count, seen = Counter(plain), Counter[str]()
    names = []
    for name in plain:
        seen[name] += 1
        names.append(f"{name}{seen[name]}" if count[name] > 1 else name)
    return tuple(names)
