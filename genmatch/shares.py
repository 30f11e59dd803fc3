r"""Work on many rows, dealt out in chunks to the processes of torchrun, with one result whatever their number.

    row i is in chunk c = i // C, which is drawn with a seed of its own, f(seed, purpose, c), by process c mod R

The chunk, not the process, sets the seed and the batch: so the rows are the same on one process or on several, and each process ends
with all of them. Work that keys its draws by the row itself, as `gm.stream` does, needs no seed of the chunk.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from genmatch import draws
from genmatch.rows import GROUP
from genmatch.tensors import State, batch_size, tree_map
from genmatch.training.engine import Engine

CHUNK = GROUP
"""Rows of a chunk: those that share a generator, so that none is drawn for twice. Another number is another draw."""


def shared(n: int, work: Callable[[slice, int], State], *, seed: int, purpose: str, together: Engine) -> State:
    """The results of `n` rows, (n, ...), on the CPU.

    Args:
        n: number of rows.
        work: takes the rows of a chunk and a seed, and returns a result for each of them, (rows, ...).
        seed: of all of it.
        purpose: names what is drawn, so that two purposes of one seed draw different numbers.
        together: the processes.

    Example:
        >>> from genmatch.training.engine import OneProcess
        >>> shared(3, lambda rows, seed: torch.arange(rows.start, rows.stop), seed=0, purpose="rows", together=OneProcess())
        tensor([0, 1, 2])
    """
    chunks = -(-n // CHUNK)
    found: list[State] = []
    for first in range(0, chunks, together.size):
        # A process that is left over does a chunk that another one does too: it must know what the results look like.
        chunk = (first + together.rank) % chunks
        rows = slice(chunk * CHUNK, min((chunk + 1) * CHUNK, n))
        result = tree_map(lambda v: v.detach().cpu(), work(rows, draws.key(seed, purpose, chunk)))
        gathered = tree_map(together.gather, tree_map(_filled, result))
        for rank in range(min(together.size, chunks - first)):
            size = min(CHUNK, n - (first + rank) * CHUNK)
            found.append(tree_map(lambda v, rank=rank, size=size: v[rank, :size], gathered))
    return tree_map(lambda *parts: torch.cat(parts), *found)


def _filled(value: torch.Tensor) -> torch.Tensor:
    """The rows with zeros after them, to the length of a chunk: what is gathered has one shape."""
    return torch.cat([value, value.new_zeros(CHUNK - batch_size(value), *value.shape[1:])])
