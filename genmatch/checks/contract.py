"""Checks of the contract: shapes, dtypes, seeds, untouched arguments, one time for each sample."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genmatch.checks.base import Finding, Tally, check
from genmatch.checks.statistics import EXACT, IDENTITY, z_score
from genmatch.checks.subject import Subject, cast, flat, take, times
from genmatch.errors import GenmatchError
from genmatch.outputs import check_output
from genmatch.processes.base import MarkovProcess
from genmatch.tensors import State, leaves, tree_map

_N = 8
_ARGUMENTS = ("x", "t", "s", "x1", "x0", "target", "output", "guess")


class _Calls:
    """Every random and every deterministic call of the interface, on one batch."""

    def __init__(self, subject: Subject, dtype: torch.dtype = torch.float64, n: int = _N) -> None:
        self.process, self.path = subject.process, subject.path
        self.x1 = cast(subject.points(n), dtype)
        self.t = torch.linspace(subject.time(0.3), subject.time(0.7), n, dtype=torch.float64)
        self.s = torch.linspace(subject.time(0.75), subject.time(0.95), n, dtype=torch.float64)
        self.source = self.path.source(n, rng=subject.rng("calls x0"))
        self.x0 = cast(self.source, dtype)
        self.subject = subject
        self.x = subject.sample(self.x1, self.t, rng=subject.rng("calls x"))
        self.target = self.process.target(self.x, self.t, self.x1)
        self.output = self.process.natural_at(self.target, self.x, self.t)
        self.guess = subject.random_output(n, subject.rng("calls guess"), dtype)
        self.f = subject.functions(1)[0]

    def draws(self) -> dict[str, Callable[[torch.Generator], State]]:
        """Calls that take randomness and return states."""
        process, path, n = self.process, self.path, len(self.t)
        calls = {
            "source": lambda rng: path.source(n, rng=rng),
            "sample": lambda rng: self.subject.sample(self.x1, self.t, rng=rng),
            "sample given x0": lambda rng: path.sample(self.x1, self.t, x0=self.x0, rng=rng),
            "step": lambda rng: self.subject.generator(self.output, self.x, self.t).step(self.x, 0.1, rng=rng),
        }
        if process.supports("transition"):
            calls["transition"] = lambda rng: process.transition(self.output, self.x, self.t, self.s, rng=rng)
        return calls

    def values(self) -> dict[str, Callable[[], State]]:
        """Calls that take no randomness."""
        process, path, x, t, x1 = self.process, self.path, self.x, self.t, self.x1
        calls = {
            "target": lambda: process.target(x, t, x1),
            "target given x0": lambda: process.target(x, t, x1, x0=self.x0),
            "natural": lambda: process.natural_at(self.target, x, t),
            "mean": lambda: process.mean_at(self.output, x, t),
            "divergence": lambda: process.divergence(self.target, self.guess, x, t),
            "generator": lambda: self.subject.generator(self.output, x, t).apply(self.f, x),
        }
        if path.has_log_prob:
            calls["log_prob"] = lambda: path.log_prob(x, t, x1)
        return calls


@check("shapes", "shapes and dtypes in = shapes and dtypes out; kinds = the kinds of the generator", "the call that the message names")
def shapes(subject: Subject) -> Finding:
    """What goes in as (B, *shape) of a dtype comes out so; the figure counts what does not."""
    tally, process = Tally(tolerance=EXACT), subject.process
    for dtype in (torch.float32, torch.float64):
        calls = _Calls(subject, dtype)
        _check_output(process, calls.output)
        tally.add(float(not _alike(calls.output, calls.x, dtypes_only=True)), f"{dtype}: dtype of natural(target), {_describe(calls.output)}")
        for name, draw in calls.draws().items():
            state = draw(subject.rng("shapes", name))
            wanted = calls.x if name != "source" else cast(calls.x, leaves(calls.source)[0].dtype)
            tally.add(float(not _alike(state, wanted)), f"{dtype}: {name} is {_describe(state)}, expected {_describe(wanted)}")
            subject.space.validate(state, name)
        for name in ("divergence", "generator", "log_prob"):
            if name in calls.values():
                value = calls.values()[name]()
                tally.add(float(value.shape != (_N,) or not value.is_floating_point()), f"{dtype}: {name} is {_describe(value)}, expected (B,) = ({_N},)")
        kinds = subject.generator(calls.output, calls.x, calls.t).kinds
        tally.add(float(kinds != process.kinds), f"kinds: declared {sorted(process.kinds)}, found {sorted(kinds)}")
    return tally.finding()


def _check_output(process: MarkovProcess, output: State) -> None:
    try:
        check_output(process.output_shape, output, _N)
    except GenmatchError as error:
        raise GenmatchError(f"natural(target) and `output_shape` do not fit: as a network, {error}") from None


def _alike(state: State, like: State, dtypes_only: bool = False) -> bool:
    """Same shapes and dtypes; of outputs only whether floating parts have the dtype of a floating state."""
    if dtypes_only:
        wanted = {leaf.dtype for leaf in leaves(like) if leaf.is_floating_point()}
        found = {leaf.dtype for leaf in leaves(state)}
        return not wanted or (all(leaf.is_floating_point() for leaf in leaves(state)) and wanted <= found)
    return [(leaf.shape, leaf.dtype) for leaf in leaves(state)] == [(leaf.shape, leaf.dtype) for leaf in leaves(like)]


def _describe(state: State) -> str:
    return " and ".join(f"{tuple(leaf.shape)} {str(leaf.dtype).removeprefix('torch.')}" for leaf in leaves(state))


@check("seeds", "the same `rng` gives the same draw, and nothing else is drawn from", "`rng`, which every random call must receive")
def seeds(subject: Subject) -> Finding:
    """Draws are functions of `rng` alone."""
    tally, calls = Tally(tolerance=EXACT), _Calls(subject)
    for name, draw in calls.draws().items():
        before = torch.get_rng_state()
        first, again = (draw(torch.Generator().manual_seed(1)) for _ in range(2))
        tally.add(float(not torch.equal(before, torch.get_rng_state())), f"{name}: it draws from torch's global generator")
        tally.add(float(not torch.equal(flat(first), flat(again))), f"{name}: the same seed gives two draws")
    for name, draw in _rows(calls, [0] * 64).draws().items():
        first, other = (flat(draw(torch.Generator().manual_seed(seed))) for seed in (1, 2))
        is_random = not torch.equal(first, first[:1].expand_as(first))
        tally.add(float(is_random and torch.equal(first, other)), f"{name}: the seed is ignored")
    return tally.finding()


@check("inputs-untouched", "no call writes to its arguments", "operations in place, such as `x += ...` or `masked_scatter_`")
def inputs_untouched(subject: Subject) -> Finding:
    """The caller's tensors are the caller's."""
    tally, calls = Tally(tolerance=EXACT), _Calls(subject)
    kept = {name: tree_map(torch.clone, getattr(calls, name)) for name in _ARGUMENTS}
    actions = {name: lambda draw=draw: draw(subject.rng("untouched")) for name, draw in calls.draws().items()}
    for name, call in {**calls.values(), **actions}.items():
        call()
        for argument, value in kept.items():
            now = getattr(calls, argument)
            same = all(torch.equal(a, b) for a, b in zip(leaves(value), leaves(now), strict=True))
            tally.add(float(not same), f"{name} changed `{argument}`")
            setattr(calls, argument, tree_map(torch.clone, value))
    return tally.finding()


@check("times", "a batch with several times gives what each gives alone", "`t` of shape (B,), which `expand` broadcasts against states")
def several_times(subject: Subject) -> Finding:
    """Every sample has a time of its own."""
    tally, together = Tally(), _Calls(subject)
    for name, call in together.values().items():
        row = flat(_column(call()))
        for i in range(_N):
            alone = flat(_column(_rows(together, [i]).values()[name]()))
            gap = torch.where(row[i] == alone[0], 0.0, (row[i] - alone[0]).abs()).max()
            tally.add(gap / (IDENTITY * (1 + alone[0].nan_to_num(neginf=0).abs().max())), f"{name}, sample {i}")
    _mixed_draws(subject, tally)
    return tally.finding()


def _column(value: State) -> State:
    return tree_map(lambda v: v.unsqueeze(-1), value)


def _rows(calls: _Calls, index: list[int]) -> _Calls:
    """The same calls on chosen rows of the batch."""
    one = object.__new__(_Calls)
    one.__dict__.update(calls.__dict__)
    for name in _ARGUMENTS:
        setattr(one, name, take(getattr(calls, name), torch.tensor(index)))
    return one


def _mixed_draws(subject: Subject, tally: Tally) -> None:
    """Draws at two times in one batch follow the laws of the draws at each."""
    n = max(1000, int(4000 * subject.effort))
    x1, early = subject.points(n), torch.arange(n) % 2 == 0
    low, middle, high = (times(subject.time(u), n) for u in (0.2, 0.5, 0.8))
    t = torch.where(early, low, high)
    draws: dict[str, Callable[[Tensor, str], State]] = {"sample": lambda t, seed: subject.sample(x1, t, rng=subject.rng("mixed", seed))}
    if subject.process.supports("transition"):

        def transition(t: Tensor, seed: str) -> State:
            start = torch.where(t > 0.5, middle, low / 2)
            x = subject.sample(x1, start, rng=subject.rng("mixed start", seed))
            return subject.process.transition(subject.output(x, start, x1), x, start, t, rng=subject.rng("mixed", seed))

        draws["transition"] = transition
    for name, draw in draws.items():
        mixed = draw(t, "together")
        for time in (low, high):
            rows = t == time
            single = draw(time, "alone")
            for k, f in enumerate(subject.functions()):
                tally.add(z_score((f(mixed) - f(single))[rows], 1.0), f"{name} at t = {float(time[0]):.3g}, f[{k}]")
