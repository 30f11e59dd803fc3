r"""The metric path: tokens that draw near to the data, for tokens that have a distance.

    p_t(x | z) = exp(-beta_t d(x, z)) / Z,    beta_0 = 0,  beta_1 = infinity

Noise is uniform; at first any token is as likely as another, then the neighbours of the data token, then it alone. With
$\beta = c \kappa / (1 - \kappa)$, $\dot\beta = c \dot\kappa / (1 - \kappa)^2$. Of all rates that follow it, those of least
kinetic energy go only towards the data:

    Q^z(v | x) = beta' p_t(v | z) [d(x, z) - d(v, z)]_+

without a division. The identity holds for any $d$ with $d(x, z) = 0$ just where $x = z$: the triangle inequality is not needed,
and is not asked for, so that powers of a distance serve too.

Source: "Flow Matching with General Discrete Paths" (Shaul et al., ICLR 2025), https://arxiv.org/abs/2412.03487, eq. 14 and 19.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, number_in, unknown
from genmatch.paths.base import with_kappa
from genmatch.paths.rates import Rates
from genmatch.paths.tokens import AveragedRates, TablePath, real_matrix
from genmatch.paths.visits import by_kappa
from genmatch.schedules import CondOT, Schedule
from genmatch.spaces import Categorical


class Metric(TablePath):
    """Tokens that draw near to the data.

    Args:
        shape: shape of one state, such as (64,).
        distance: "absolute", |x - z| for tokens that are ordered, such as grey levels; "euclidean", between `embeddings`;
            or a matrix of distances, (V, V).
        vocab_size: number of tokens V, for "absolute".
        embeddings: a vector for each token, (V, d), for "euclidean".
        power: the distance is raised to this.
        scale: c, how fast noise leaves far tokens.
        schedule: gives kappa.

    Raises:
        GenmatchError: if the distance is not one: negative, not symmetric, not zero from a token to itself, or zero between
            two; or an argument does not fit.

    Example:
        >>> path = Metric((2,), distance="absolute", vocab_size=3)
        >>> path.likelihood(torch.tensor([[0, 1]]), torch.tensor([0.5])).shape
        torch.Size([1, 2, 3])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        distance: str | Tensor = "absolute",
        *,
        vocab_size: int | None = None,
        embeddings: Tensor | None = None,
        power: float = 1.0,
        scale: float = 1.0,
        schedule: Schedule = CondOT(),  # noqa: B008 (immutable)
    ) -> None:
        self.power, self.scale = (number_in("(0, inf)", value, name, "1 is the default") for value, name in ((power, "power"), (scale, "scale")))
        self.distance = _checked(_distances(distance, vocab_size, embeddings)) ** self.power
        self.space = Categorical(shape, len(self.distance))
        self.schedule = with_kappa(schedule)
        self._name = distance if isinstance(distance, str) else "matrix"

    def __repr__(self) -> str:
        power = "" if self.power == 1 else f", power={self.power:g}"
        return f"Metric({self.space.shape}, vocab_size={self.space.vocab_size}, distance={self._name!r}{power}, scale={self.scale:g}, schedule={self.schedule})"

    @property
    def rates(self) -> Mapping[str, Rates]:
        return {"kinetic": MetricRates(self)}

    def beta(self, t: Tensor) -> Tensor:
        """The inverse temperature, from 0 to infinity, float64, of any shape."""
        return self.scale * self.schedule.kappa(t) / self.schedule.sigma(t)

    def d_beta(self, t: Tensor) -> Tensor:
        """Time derivative of beta."""
        return self.scale * self.schedule.d_kappa(t) / self.schedule.sigma(t) ** 2

    def warp(self, u: Tensor, start: float, end: float) -> tuple[Tensor, Tensor]:
        return by_kappa(self.schedule, u, start, end)

    def table(self, t: Tensor) -> Tensor:
        return self._law(self.distance.to(t.device), self.beta(t).reshape(-1, 1, 1), dim=1)

    def law(self, z: Tensor, t: Tensor) -> Tensor:
        """p_t(. | z) for data tokens and times (N,), float64, (N, V)."""
        return self._law(self.distance.to(z.device)[z], self.beta(t).unsqueeze(-1), dim=-1)

    @staticmethod
    def _law(distance: Tensor, beta: Tensor, dim: int) -> Tensor:
        # At t = 1 infinity times the distance zero of a token to itself is zero.
        return torch.where(distance > 0, -beta * distance, 0).softmax(dim)


class MetricRates(AveragedRates):
    """Rates of least kinetic energy: each jump brings a token nearer to the data."""

    def __init__(self, path: Metric) -> None:
        super().__init__(path)
        self.path = path

    def clock(self, t: Tensor) -> Tensor:
        return self.path.d_beta(t)

    def jumps(self, x: Tensor, z: Tensor, t: Tensor) -> Tensor:
        distance = self.path.distance.to(x.device)
        return self.path.law(z, t) * (distance[x, z].unsqueeze(-1) - distance[z]).clamp(min=0)


def _distances(distance: Any, vocab_size: int | None, embeddings: Tensor | None) -> Tensor:
    """The matrix of distances before it is checked, float64, (V, V)."""
    wanted = {"absolute": vocab_size is not None and embeddings is None, "euclidean": embeddings is not None}
    if isinstance(distance, str) and distance not in wanted:
        raise unknown("distance", distance, list(wanted))
    if isinstance(distance, str) and not wanted[distance]:
        raise GenmatchError(
            "`distance` 'absolute' needs `vocab_size`, and 'euclidean' needs `embeddings`; "
            f"got distance={distance!r}, vocab_size={vocab_size}, embeddings={'given' if embeddings is not None else None}."
        )
    if not isinstance(distance, str):
        matrix = real_matrix(distance, "distance", "(V, V)")
    elif distance == "absolute":
        tokens = torch.arange(Categorical((1,), vocab_size or 0).vocab_size, dtype=torch.float64)
        matrix = (tokens.unsqueeze(-1) - tokens).abs()
    else:
        vectors = real_matrix(embeddings, "embeddings", "(V, d)")
        matrix = (vectors.unsqueeze(1) - vectors).norm(dim=-1)
    if vocab_size is not None and len(matrix) != vocab_size:
        raise GenmatchError(f"`vocab_size` is {vocab_size}, but the distances are of {len(matrix)} tokens; leave `vocab_size` out.")
    return matrix


def _checked(distance: Tensor) -> Tensor:
    """Returns a matrix of distances, or says why it is none."""
    if distance.shape[0] != distance.shape[1]:
        raise GenmatchError(f"`distance` must have shape (V, V), got {tuple(distance.shape)}; pass vectors as `embeddings`, with distance='euclidean'.")
    apart = ~torch.eye(len(distance), dtype=torch.bool, device=distance.device)
    tolerance = 1e-9 * float(distance.abs().max())
    faults = {
        "a negative entry; the path would flee from the data": distance < 0,
        "a token at a distance from itself; the path would not end there": ~apart & (distance != 0),
        "two tokens at distance 0; the path cannot tell them apart at t = 1": apart & (distance == 0),
        "two different distances between two tokens; pass (d + d.T) / 2": (distance - distance.mT).abs() > tolerance,
    }
    for fault, where in faults.items():
        if bool(where.any()):
            i, j = where.nonzero()[0].tolist()
            raise GenmatchError(f"`distance` is not a distance: it has {fault}, found d({i}, {j}) = {distance[i, j]:.6g}.")
    return distance
