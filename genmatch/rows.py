r"""Random numbers of the samples of a call, whatever the batches they are drawn in.

    number k of sample i  =  f(seed, k, i)

One generator for a batch deals its numbers to whoever is in the batch. Here every 64 samples of a call have a generator of their own,
and a batch that holds some of them draws for all of the 64 and takes its rows: so the samples are the same for every size of a batch.
A call of up to 64 samples at once is the plain generator. `uniform`, `normal` and `integers` draw rows from either kind.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

GROUP = 64
"""Samples that share a generator."""


class Rows(torch.Generator):
    """The generator of a batch, made by `Groups.part`: of the rows of a tensor for `uniform` and its like, of anything else by itself.

    Attributes:
        n: rows of the batch.
        pieces: for each group that has rows in it: its generator, how many samples it has, and which of them are here.
    """

    n: int
    pieces: list[tuple[torch.Generator, int, slice]]


class Groups:
    """The generators of the samples of one call.

    Args:
        rng: the first group's, from which the others are seeded; later calls with it have other numbers.
        n: samples of the call.

    Example:
        >>> def draw(size):
        ...     groups = Groups(torch.Generator().manual_seed(0), 100)
        ...     parts = [(start, min(start + size, 100)) for start in range(0, 100, size)]
        ...     return torch.cat([normal((stop - start, 2), rng=groups.part(start, stop)) for start, stop in parts])
        >>> torch.equal(draw(100), draw(7))
        True
    """

    def __init__(self, rng: torch.Generator, n: int) -> None:
        self.rng, self.n = rng, n
        self._state = rng.get_state()
        self._used = False
        self._seeds = torch.randint(2**62, (-(-n // GROUP),), device=rng.device, generator=self._first()).tolist()

    def part(self, start: int, stop: int) -> torch.Generator:
        """The generator of the samples from `start` to before `stop`; ask for each batch once, the first one first."""
        if (start, stop) == (0, self.n) and self.n <= GROUP:
            return self.rng
        rows = Rows(self.rng.device)
        # What belongs to no sample is the same in every batch.
        rows.manual_seed(self._seeds[0])
        rows.n, rows.pieces = stop - start, []
        for group in range(start // GROUP, -(-stop // GROUP)):
            first = group * GROUP
            size = min(GROUP, self.n - first)
            rows.pieces.append((self._generator(group), size, slice(max(start - first, 0), min(stop - first, size))))
        return rows

    def _generator(self, group: int) -> torch.Generator:
        if group:
            return torch.Generator(self.rng.device).manual_seed(self._seeds[group])
        # The caller's own goes on, so that a second call with it has other numbers; what is drawn twice starts where it did.
        self._used, again = True, self._used
        return self._first() if again else self.rng

    def _first(self) -> torch.Generator:
        copy = torch.Generator(self.rng.device)
        copy.set_state(self._state)
        return copy


def uniform(shape: tuple[int, ...], *, dtype: torch.dtype | None = None, device: torch.device | None = None, rng: torch.Generator | None) -> Tensor:
    """Numbers in [0, 1)."""
    return _drawn(lambda size, source: torch.rand(size, dtype=dtype, device=device, generator=source), shape, rng)


def normal(shape: tuple[int, ...], *, dtype: torch.dtype | None = None, device: torch.device | None = None, rng: torch.Generator | None) -> Tensor:
    """Standard normal numbers."""
    return _drawn(lambda size, source: torch.randn(size, dtype=dtype, device=device, generator=source), shape, rng)


def integers(high: int, shape: tuple[int, ...], *, device: torch.device | None = None, rng: torch.Generator | None) -> Tensor:
    """Integers from 0 to before `high`."""
    return _drawn(lambda size, source: torch.randint(high, size, device=device, generator=source), shape, rng)


def _drawn(draw: Callable[[tuple[int, ...], torch.Generator | None], Tensor], shape: tuple[int, ...], rng: torch.Generator | None) -> Tensor:
    if isinstance(rng, Rows) and len(shape) > 0 and shape[0] == rng.n:
        return torch.cat([draw((size, *shape[1:]), source)[rows] for source, size, rows in rng.pieces])
    return draw(tuple(shape), rng)
