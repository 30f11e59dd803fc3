"""What processes that reveal tokens in turns share: from left to right, and block by block."""

from __future__ import annotations

from torch import Tensor

from genmatch.paths.blocks import Blocks
from genmatch.paths.sequential import Sequential
from genmatch.processes.posterior import PosteriorProcess
from genmatch.schedules import Schedule


class Ordered(PosteriorProcess):
    """Masks become data in the order of their turns, and then stay. Its path has `turns`."""

    path: Sequential | Blocks
    kinds = frozenset({"jump"})
    sparse = True

    def posterior(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Logits of p(x1_j = v given what the network sees at j), (B, L, V)."""
        return output

    def masked(self, x: Tensor) -> Tensor:
        """Where a token is the mask, (B, L)."""
        return x == self.path.space.mask_id

    def turns(self, x: Tensor) -> Tensor:
        """The turn of each position, (L,): masks of an earlier one come first."""
        return self.path.turns(x)

    @property
    def redrawing(self) -> Schedule:
        """The schedule by which masks become data."""
        return self.path.schedule

    @property
    def tilt_misfit(self) -> str | None:
        return f"{self} has no states with a later token before an earlier one, so that states say of the next tokens alone what a condition changes"

    @property
    def bound_is_tight(self) -> bool:
        return True
