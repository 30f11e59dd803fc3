"""What solvers for tokens ask of a chain, besides its `transition`.

A process that defines one of these methods says so by `supports`, and a solver names those that it uses in `needs`.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import Tensor

from genmatch.logits import draw_where
from genmatch.paths.base import Path
from genmatch.processes.base import MarkovProcess
from genmatch.schedules import Schedule
from genmatch.tensors import uniforms


class TokenChain(Protocol):
    """The optional methods of a process on tokens, each of which is an ability of its own."""

    path: Path

    def posterior(self, output: Any, x: Tensor, t: Tensor) -> Any:
        """Logits of p(x1_j = v given x), (B, *shape, V)."""

    def cavity(self, output: Any, x: Tensor, t: Tensor) -> Any:
        """Logits of p(x1_j = v given the other tokens), (B, *shape, V)."""

    def is_noise(self, x: Tensor) -> Tensor:
        """Where a token can be noise, (B, *shape)."""

    def masked(self, x: Tensor) -> Tensor:
        """Where a token is the mask, (B, *shape)."""

    def turns(self, x: Tensor) -> Tensor:
        """When each position has its turn, integers from 0, (*shape): masks of an earlier turn are revealed first, those of one in any order."""

    def hidden(self, x: Tensor, where: Tensor) -> Tensor:
        """The states without what they say at `where`."""

    def renoise(self, x: Tensor, s: Tensor, t: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """Draws X_t given X_s = x for an earlier time `t`."""

    @property
    def redrawing(self) -> Schedule:
        """The schedule by which tokens that can be noise are redrawn from their posterior, and nothing else happens."""


def chain_of(process: MarkovProcess) -> TokenChain:
    """The process, seen as a chain of tokens; `needs` has made sure that it has what is asked for."""
    return cast(TokenChain, process)


def redraw(x: Tensor, where: Tensor, logits: Any, rng: torch.Generator | None) -> Tensor:
    """The states with new tokens at `where`, drawn from `logits` there."""
    return x.masked_scatter(where, draw_where(logits, where, uniforms(x, rng=rng)))
