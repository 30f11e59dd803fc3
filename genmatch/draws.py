r"""Random numbers by what they are for, not by what was drawn before.

    number of data point i at step k for a purpose  =  f(seed, purpose, k, i)

A global generator makes every draw depend on all draws before it: on the number of processes, on how a batch is cut, on whether a run
was interrupted. Here each step and purpose has a generator of its own, which draws for the whole batch; a process takes its rows.
So the numbers are the same on one process or on several, with or without accumulation, and after a run was killed and went on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_WORD = 2**32
_LISTED = 2**24
"""Data points of which an order is listed; that of more is computed, a batch at a time."""
_ROUNDS = 6


def key(seed: int, purpose: str, step: int) -> int:
    """A seed in [0, 2^32), different for each step of a purpose: torch's CPU generator looks at 32 bits.

    Example:
        >>> key(0, "noise", 1) == key(0, "noise", 1), key(0, "noise", 1) == key(0, "noise", 2)
        (True, False)
    """
    start = int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:4], "little")
    word = (start + step) % _WORD
    # The finaliser of MurmurHash3 is a bijection, so that two steps never share a seed, and it keeps near steps far apart.
    word = ((word ^ (word >> 16)) * 0x85EBCA6B) % _WORD
    word = ((word ^ (word >> 13)) * 0xC2B2AE35) % _WORD
    return word ^ (word >> 16)


def rng(seed: int, purpose: str, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator of a step for a purpose; it draws for the whole batch."""
    return torch.Generator(device).manual_seed(key(seed, purpose, step))


@contextmanager
def globally(seed: int, purpose: str, step: int, device: torch.device | None = None) -> Iterator[None]:
    """Seeds torch's global generators for the time of a block: for dropout and for data sets that draw, which ask nobody.

    Args:
        seed: of the run.
        purpose: what is drawn, such as "dropout".
        step: optimiser steps done.
        device: whose generator is seeded too.
    """
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(key(seed, purpose, step))
        yield


def permuted(index: Tensor, n: int, seed: int) -> Tensor:
    """Where a permutation of 0 .. n - 1 puts the numbers of `index`; it is computed for these alone, not listed.

    A Feistel network is a bijection of the numbers below a power of four, whatever its rounds; a number that lands beyond n goes
    through it again until it does not, which it does after four times on average at most. Source: "Ciphers with Arbitrary Finite Domains" (Black & Rogaway, 2002).

    Example:
        >>> sorted(permuted(torch.arange(5), 5, seed=1).tolist())
        [0, 1, 2, 3, 4]
    """
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    keys = [key(seed, "round", i) for i in range(_ROUNDS)]

    def once(x: Tensor) -> Tensor:
        left, right = x >> half, x & mask
        for k in keys:
            # Below 2^31, so that the product stays inside int64; the rounds need not be bijections.
            mixed = (right ^ k) & 0x7FFFFFFF
            mixed = (mixed ^ (mixed >> 15)) * 0x2C1B3C6D & 0x7FFFFFFF
            mixed = (mixed ^ (mixed >> 12)) * 0x297A2D39 & 0x7FFFFFFF
            left, right = right, left ^ ((mixed ^ (mixed >> 15)) & mask)
        return (left << half) | right

    found = once(index)
    while bool((beyond := found >= n).any()):
        found[beyond] = once(found[beyond])
    return found


class Order:
    """The order in which data points are seen: every one once an epoch, shuffled anew for each.

    Args:
        n: number of data points.
        size: data points a batch; a batch runs on into the next epoch.
        seed: of the order.
    """

    def __init__(self, n: int, size: int, seed: int) -> None:
        self.n, self.size, self.seed = n, size, seed
        self._epoch, self._shuffled = -1, torch.empty(0, dtype=torch.int64)

    def batch(self, step: int) -> Tensor:
        """The data points of the batch of a step, counted from 0, (size,)."""
        first, last = step * self.size, (step + 1) * self.size
        parts = []
        while first < last:
            epoch, place = divmod(first, self.n)
            stop = min(place + last - first, self.n)
            part = self._rows(epoch)[place:stop] if self.n <= _LISTED else permuted(torch.arange(place, stop), self.n, key(self.seed, "order", epoch))
            parts.append(part)
            first += len(part)
        return torch.cat(parts)

    def _rows(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            self._epoch, self._shuffled = epoch, torch.randperm(self.n, generator=rng(self.seed, "order", epoch))
        return self._shuffled
