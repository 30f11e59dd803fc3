r"""A path of tokens from any table p_t(x | z) with its derivative, and the rates of least kinetic energy that follow it.

    Q^z(v | x) = [p'(v) p(x) - p(v) p'(x)]_+ / p(x) = [p'(v) - p(v) p'(x) / p(x)]_+

The divisor is the law at the present state $x$, not at the destination $v$; where $p(x) = 0$ the rate is 0. On the mixture path
these are its own rates, $w \delta_z$.

Source: "Flow Matching with General Discrete Paths" (Shaul et al., ICLR 2025), https://arxiv.org/abs/2412.03487, eq. 16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.paths.rates import Rates
from genmatch.paths.tokens import AveragedRates, TablePath
from genmatch.spaces import Categorical

Table = Callable[[Tensor], Tensor]
"""Takes times (U,) in float64 and returns a table at each, (U, V, V), whose entry [u, x, z] belongs to state x and data z."""

_TIMES = (0.1, 0.37, 0.81)
_STEP = 1e-5


class Discrete(TablePath):
    """Tokens that follow a law of your own.

    Args:
        shape: shape of one state, such as (256,).
        probs: p_t(x | z) as a table at each of the times (U,), float64 on the CPU, (U, V, V); column [u, :, z] is the law given z.
        d_probs: its derivative by time, likewise; it is asked for inside (0, 1) only.

    Raises:
        GenmatchError: if a column is not a law, the columns at t = 0 differ, the table at t = 1 is not the identity, or
            `d_probs` is not the derivative of `probs`.

    Example: the mixture path with uniform noise, written out.
        >>> def probs(t):
        ...     return (1 - t).reshape(-1, 1, 1) / 3 + t.reshape(-1, 1, 1) * torch.eye(3, dtype=t.dtype)
        >>> def d_probs(t):
        ...     return (torch.eye(3, dtype=t.dtype) - 1 / 3).expand(len(t), 3, 3)
        >>> Discrete((2,), probs, d_probs)
        Discrete((2,), vocab_size=3)
    """

    def __init__(self, shape: tuple[int, ...], probs: Table, d_probs: Table) -> None:
        self.table_at, self.slope_at = probs, d_probs
        self.space = Categorical(shape, len(_checked_law(probs)))
        _check_slope(probs, d_probs)

    def __repr__(self) -> str:
        return f"Discrete({self.space.shape}, vocab_size={self.space.vocab_size})"

    @property
    def rates(self) -> Mapping[str, Rates]:
        return {"kinetic": KineticRates(self)}

    def table(self, t: Tensor) -> Tensor:
        return self.table_at(t.cpu()).double().to(t.device)

    def slope(self, t: Tensor) -> Tensor:
        """The time derivative of `table`, (U, V, V)."""
        return self.slope_at(t.cpu()).double().to(t.device)


class KineticRates(AveragedRates):
    """Rates of least kinetic energy: no flow between two states goes both ways."""

    def __init__(self, path: Discrete) -> None:
        super().__init__(path)
        self.path = path

    def clock(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def jumps(self, x: Tensor, z: Tensor, t: Tensor) -> Tensor:
        times, time = t.unique(return_inverse=True)
        p, d_p = (table.mT[time, z] for table in (self.path.table(times), self.path.slope(times)))
        p_x, d_p_x = (law.gather(-1, x.unsqueeze(-1)) for law in (p, d_p))
        rates = torch.where(p_x > 0, (d_p - p * d_p_x / p_x).clamp(min=0), 0)
        return rates.scatter(-1, x.unsqueeze(-1), 0.0)


def _times(*times: float) -> Tensor:
    return torch.tensor(times, dtype=torch.float64)


def _checked_law(probs: Table) -> Tensor:
    """The table at t = 1, after `probs` has been found to lead from one law to the data."""
    p = probs(_times(0.0, *_TIMES, 1.0))
    if not isinstance(p, Tensor) or p.dim() != 3 or p.shape[1] != p.shape[2] or len(p) != 2 + len(_TIMES):
        found = tuple(p.shape) if isinstance(p, Tensor) else type(p).__name__
        raise GenmatchError(f"`probs(t)` must return a tensor of shape (U, V, V) for times (U,), got {found} for {2 + len(_TIMES)} times.")
    gap = float((p.sum(1) - 1).abs().max())
    if not bool((p >= 0).all()) or not gap < 1e-6:
        raise GenmatchError(
            f"`probs(t)[u, :, z]` must be probabilities of the states given z, got a minimum of {float(p.min()):.3g} and sums that miss 1 by {gap:.3g}; "
            "if the rows sum to 1 instead, transpose."
        )
    if float((p[0] - p[0, :, :1]).abs().max()) > 1e-6:
        raise GenmatchError("`probs` at t = 0 must be one law for all data tokens z: noise knows nothing of the data; got columns that differ.")
    if not torch.equal(p[-1], torch.eye(p.shape[1], dtype=p.dtype, device=p.device)):
        raise GenmatchError("`probs` at t = 1 must be the identity: the path ends in the data, exactly; got another table.")
    return p[-1]


def _check_slope(probs: Table, d_probs: Table) -> None:
    t = _times(*_TIMES)
    numeric, slope = (probs(t + _STEP) - probs(t - _STEP)) / (2 * _STEP), d_probs(t)
    if not isinstance(slope, Tensor) or slope.shape != numeric.shape:
        found = tuple(slope.shape) if isinstance(slope, Tensor) else type(slope).__name__
        raise GenmatchError(f"`d_probs(t)` must have the shape of `probs(t)`, {tuple(numeric.shape)}, got {found}.")
    gap, size = float((numeric - slope).abs().max()), float(numeric.abs().max())
    if not gap < 1e-4 * (size + 1):
        raise GenmatchError(f"`d_probs` must be the time derivative of `probs`: it differs from finite differences by {gap:.3g}, of at most {size:.3g}.")
