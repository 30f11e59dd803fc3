r"""Pure jumps on R^d: each coordinate stays where it is until it jumps.

The network predicts a posterior over the levels that a coordinate of the data can have, $\pi^j(b | x) = p(x_1^j = z_b | X_t = x)$.
The path says at what rate a coordinate on its way to $z_b$ jumps, and where it lands; the process follows the average of
these measures, rate and destination together:

    Q^j(dy | x) = sum_b pi^j(b | x) lambda^{z_b}(x_j) J^{z_b}(dy)

Source: "Generator Matching" (Holderrieth et al., ICLR 2025), https://arxiv.org/abs/2410.20587, section 3 and its jump models.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genmatch.calculus import neighbours
from genmatch.generators import Generator
from genmatch.logits import draw_at
from genmatch.paths.base import Path
from genmatch.processes.base import LogWeight
from genmatch.processes.levels import LevelProcess


class JumpProcess(LevelProcess):
    """Real coordinates that jump from noise to data on a grid of levels.

    Data are moved to the nearest level, in training and in the oracle.

    Args:
        path: a path on R^d with jumps: `Gaussian` or `RealMixture`.
        bins: the levels of the data, increasing, (K,), such as the grey levels of an image; or a number of them, spread evenly
            over [-2, 2]. Left out where the path knows its grid.

    Raises:
        GenmatchError: if the path has no jumps, or no levels are given.

    Example:
        >>> from genmatch.paths import Gaussian
        >>> process = JumpProcess(Gaussian((2,)), bins=torch.tensor([-1.0, 0.0, 1.0]))
        >>> process.output_shape
        (2, 3)
        >>> process.target(torch.zeros(1, 2), torch.zeros(1), torch.tensor([[1.0, -1.0]]))
        tensor([[2, 0]])
    """

    kinds = frozenset({"jump"})

    def __init__(self, path: Path, bins: int | Tensor | None = None) -> None:
        super().__init__(path, bins)
        self._rates = path.jumps(self.grid)
        self.t_min = self._rates.t_min

    def divergence(self, target: Tensor, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The cross-entropy of the levels of all coordinates that can still jump, nats, (B,)."""
        nats = self.nats(target, output)
        return torch.where(self._rates.moves(x), nats, torch.zeros_like(nats)).flatten(1).sum(-1)

    @property
    def bound_is_tight(self) -> bool:
        return self._rates.tight

    def generator(self, output: Tensor, x: Tensor, t: Tensor) -> Generator:
        return self._rates.generator(output, x, t)

    def transition(self, output: Tensor, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        return self._rates.transition(output, x, t, s, rng=rng)

    def finish(self, output: Tensor, x: Tensor, t: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """Every coordinate that can still jump becomes a draw from its posterior."""
        moves = self._rates.moves(x)
        return x.masked_scatter(moves, self.grid.at(draw_at(output[moves], moves, rng=rng), x.dtype))

    def tilted(self, output: Tensor, x: Tensor, t: Tensor, log_weight: LogWeight) -> Tensor:
        """The posterior times the weights of the states that jumps lead to, where these are data. On a `RealMixture` path only."""
        if self.tilt_misfit:
            return super().tilted(output, x, t, log_weight)
        moves = self._rates.moves(x).unsqueeze(-1)
        changed = output + neighbours(log_weight, x, self.grid.levels.to(x), ~output.isneginf() & moves)
        possible = moves & ~changed.isneginf().all(-1, keepdim=True)
        return torch.where(possible, changed, output.double()).to(output.dtype)

    @property
    def tilt_misfit(self) -> str | None:
        return None if self.path.has_atoms else super().tilt_misfit

    def intensity_bound(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return self._rates.bound(x, t, s)

    def supports(self, ability: str) -> bool:
        return {"transition": self._rates.has_transition, "intensity_bound": self._rates.has_bound}.get(ability, super().supports(ability))
