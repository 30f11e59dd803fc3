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
            part = self._rows(epoch)[place : place + last - first]
            parts.append(part)
            first += len(part)
        return torch.cat(parts)

    def _rows(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            self._epoch, self._shuffled = epoch, torch.randperm(self.n, generator=rng(self.seed, "order", epoch))
        return self._shuffled
