r"""Outputs of causal networks: what was said of a prefix still holds when tokens follow it.

The features at position j of a causal network depend on the tokens before j alone,

    features_j(x) = f(x_1, ..., x_{j-1}),

so that a network with `causal = True` and `resume(x, t, memory, start, stop, **condition)` is asked only for the positions that
are new, or whose prefix has changed, up to the last one that is read. A network with `block = n` sees the tokens of its own block too,
and is asked for whole blocks: those that have not changed are not computed again. Its memory holds the keys and values of the others: with one
token a call, L calls cost about as much as one on the whole sequence. What is read does not know of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genmatch.lazy import Model, Reader
from genmatch.logits import Indexed


def resumes(model: Model) -> bool:
    """Whether a network is causal or block-causal, split into `features` and `head`, and can go on from what it remembers."""
    return (
        bool(getattr(model, "causal", False) or getattr(model, "block", None))
        and callable(getattr(model, "resume", None))
        and callable(getattr(model, "head", None))
    )


class PrefixReader:
    """A causal network that is asked for parts of its outputs.

    Args:
        model: the network, with `resume` and `head`.
        condition: keyword arguments of the network, one entry a sample.
        shape: of one output, (L, V).
        time_dtype: what times are given to the network in.

    Attributes:
        calls: network calls of each sample so far, (B,), or 0.
    """

    def __init__(self, model: Model, condition: Mapping[str, Tensor], shape: Any, time_dtype: torch.dtype) -> None:
        self.model, self.condition, self.shape, self.time_dtype = model, condition, tuple(shape), time_dtype
        self.block: int | None = getattr(model, "block", None)
        self._whole = Reader(model, condition, shape, time_dtype)
        self.logits = self._whole.logits
        self.calls: Tensor | int = 0
        self._memory: dict[Any, Any] = {}
        self._tokens: Tensor | None = None
        self._features: Tensor | None = None

    def read(self, x: Tensor, t: Tensor) -> Indexed:
        """The output at states `x`, (B, L), and times `t`, (B,), of which nothing is computed yet."""
        # Noise and data side by side are no beginning of anything.
        return Prefixed(self, x, t) if x.shape[1] == self.shape[0] else self._whole.read(x, t)

    def features(self, x: Tensor, t: Tensor, stop: int, rows: Tensor) -> Tensor:
        """The features at the positions before `stop`, and maybe more, (B, L, width); `rows` are the samples that need them, (B,)."""
        start = self._valid(x)
        if self.block is not None:
            stop = min(-(-stop // self.block) * self.block, self.shape[0])
        if self._features is None or start < stop:
            self.calls = self.calls + rows.long()
            new = self.model.resume(x, t.to(self.time_dtype), self._memory, start, stop, **self.condition)  # type: ignore[attr-defined]
            self._features = new if self._features is None else torch.cat([self._features[:, :start], new], 1)
            self._tokens = x
        return self._features

    def _valid(self, x: Tensor) -> int:
        """At how many positions the features are known and still right, for all of the samples."""
        if self._tokens is None or self._features is None or self._tokens.shape != x.shape:
            self._features = None
            return 0
        same = int((self._tokens == x).all(0).long().cumprod(0).sum())
        holds = same + 1 if self.block is None else same if same == x.shape[1] else same // self.block * self.block
        return min(holds, self._features.shape[1])


class Prefixed(Indexed):
    """An output that is read as `output[mask]`, with a mask of its shape without the last axis. Made by `PrefixReader.read`.

    Args:
        reader: runs the network.
        x: states, (B, L).
        t: times, (B,).
    """

    def __init__(self, reader: PrefixReader, x: Tensor, t: Tensor) -> None:
        self._reader, self._x, self._t = reader, x, t
        self.shape, self.device = torch.Size((len(x), *reader.shape)), x.device

    def __getitem__(self, where: Tensor) -> Tensor:
        """The logits at the coordinates with a True in `where`, in order, (N, V)."""
        row, position = where.nonzero(as_tuple=True)
        stop = int(position.max()) + 1 if len(position) else 0
        if stop == 0 and not torch.is_grad_enabled():
            return torch.empty(0, self.shape[-1], device=where.device)
        return self._reader.logits(self._reader.features(self._x, self._t, max(stop, 1), where.any(-1))[row, position])

    def expect(self, where: Tensor) -> None:
        """Nothing to prepare: the prefix up to the last position that is read is computed at once."""
