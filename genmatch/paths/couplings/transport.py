r"""Pairs by squared distances, made within a batch and among data points of equal condition.

    assignment   the permutation that minimises sum_i |x0_perm(i) - x1_i|^2
    entropic     x0 drawn for each x1 from P = argmin <P, C> - epsilon H(P), with P 1 = P^T 1 = 1 / n

Sources: "Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport" (Tong et al., 2024),
https://arxiv.org/abs/2302.00482; "Multisample Flow Matching" (Pooladian et al., 2023), https://arxiv.org/abs/2304.14772; "Near-linear
Time Approximation Algorithms for Optimal Transport via Sinkhorn Iteration" (Altschuler et al., 2017),
https://arxiv.org/abs/1705.09634, algorithm 2, which makes the marginals exact.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, number_in
from genmatch.logits import draw_categorical
from genmatch.paths.couplings.base import Coupling
from genmatch.spaces import Space
from genmatch.tensors import State, batch_size

_ITERATIONS = 1000
_WARM_UP = 5
"""Rounds of Sinkhorn at the final epsilon at most, and at each of the larger ones before it."""
_TOLERANCE = 1e-7
"""In units of epsilon: where the potentials change by less, the rounds end."""


class Transport(Coupling):
    """Pairs by squared distances, among data points of equal condition. Subclasses define `choose`."""

    @abstractmethod
    def choose(self, cost: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """For each data point the index of its noise, (n,), given the squared distances [data point, noise], (n, n).

        Args:
            cost: squared distances of noise i from data point j, float64, (n, n).
            rng: source of randomness.
        """

    def pair(self, x0: State, x1: State, space: Space, condition: Mapping[str, Tensor], *, rng: torch.Generator | None = None) -> Tensor:
        """Pairs within each group of equal condition.

        Raises:
            GenmatchError: for a floating condition, in which no two data points are equal.
        """
        index = torch.arange(batch_size(x1), device=x1.device)
        for rows in _groups(condition, batch_size(x1), x1.device):
            if len(rows) > 1:
                index[rows] = rows[self.choose(space.squared_distances(x1[rows], x0[rows]), rng=rng)]
        return x0[index]


@dataclass(frozen=True)
class OptimalTransport(Transport):
    """The assignment of least total squared distance, exactly: the noise of a batch is permuted.

    The cost grows with the cube of the batch: about 1 ms for 128 data points and 10 ms for 512. Under a condition (labels or tokens, of
    integers) the groups are those of equal condition; the more values it has, the less is left to choose.

    Example:
        >>> from genmatch.paths import Gaussian
        >>> path = Gaussian((1,), coupling=OptimalTransport())
        >>> x1 = torch.tensor([[3.0], [-3.0], [0.0]])
        >>> path.start(x1, rng=torch.Generator().manual_seed(0)).flatten().argsort().equal(x1.flatten().argsort())
        True
    """

    def choose(self, cost: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        from scipy.optimize import linear_sum_assignment

        _, columns = linear_sum_assignment(cost.cpu().numpy())
        return torch.as_tensor(columns, device=cost.device)


@dataclass(frozen=True)
class Sinkhorn(Transport):
    """Entropic transport: between the assignment (epsilon to 0) and independence (epsilon to infinity).

    Each data point draws its noise from the plan, so that one draw may serve several points or none; its law is kept.

    Args:
        epsilon: weight of the entropy, in units of squared distance: small against the 2 d of two standard normal points of R^d.

    Raises:
        GenmatchError: if `epsilon` is not a positive number.

    Example:
        >>> Sinkhorn(0.5).plan(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        tensor([[0.4404, 0.0596],
                [0.0596, 0.4404]], dtype=torch.float64)
    """

    epsilon: float

    def __post_init__(self) -> None:
        number_in("(0, inf)", self.epsilon, "epsilon", "for epsilon = 0 use `OptimalTransport()`")

    def plan(self, cost: Tensor) -> Tensor:
        """The entropic plan of squared distances (n, n), float64; rows and columns sum to 1 / n up to rounding."""
        cost = cost.double()
        potential, epsilon = torch.zeros_like(cost[0]), float(cost.max())
        # From much entropy to little: a small epsilon alone takes forever to forget its start.
        while epsilon > 2 * self.epsilon:
            _, potential = _potentials(cost, potential, epsilon, _WARM_UP)
            epsilon /= 2
        row, column = _potentials(cost, potential, self.epsilon, _ITERATIONS)
        return _rounded(((row.unsqueeze(-1) + column - cost) / self.epsilon).exp()) / len(cost)

    def choose(self, cost: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        return draw_categorical(self.plan(cost).log(), rng=rng)


def _groups(condition: Mapping[str, Tensor], n: int, device: torch.device) -> list[Tensor]:
    """The rows of each value of the condition."""
    if not condition:
        return [torch.arange(n, device=device)]
    for name, value in condition.items():
        if not isinstance(value, Tensor) or value.dim() == 0 or len(value) != n:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise GenmatchError(f"the condition `{name}` must be a tensor with one entry for each of {n} data points, got {found}.")
        if value.is_floating_point() or value.is_complex():
            raise GenmatchError(
                f"a coupling pairs data points of equal condition, as otherwise the noise given the condition is not the source's, and the condition "
                f"`{name}` of {value.dtype} has continuous values; pass integer labels, or use `gm.couplings.Independent()`."
            )
    codes = torch.cat([value.reshape(n, -1).long().to(device) for value in condition.values()], 1)
    _, group, counts = codes.unique(dim=0, return_inverse=True, return_counts=True)
    return list(group.argsort(stable=True).split(counts.tolist()))


def _potentials(cost: Tensor, column: Tensor, epsilon: float, iterations: int) -> tuple[Tensor, Tensor]:
    """Potentials f, g with exp((f_i + g_j - C_ij) / epsilon) a plan, starting from g = `column`, in units of the cost."""
    kernel, column = -cost / epsilon, column / epsilon
    row = column
    for _ in range(iterations):
        row = -torch.logsumexp(kernel + column, 1)
        before, column = column, -torch.logsumexp(kernel + row.unsqueeze(-1), 0)
        if bool((column - before).abs().max() < _TOLERANCE):
            break
    return epsilon * row, epsilon * column


def _rounded(plan: Tensor) -> Tensor:
    """The nearest plan whose rows and columns sum to 1: too long ones are cut, and what is missing is filled by a product."""
    plan = plan / plan.sum(1, keepdim=True).clamp_min(1)
    plan = plan / plan.sum(0, keepdim=True).clamp_min(1)
    rows, columns = (1 - plan.sum(1)).clamp_min(0), (1 - plan.sum(0)).clamp_min(0)
    return plan + rows.unsqueeze(-1) * columns / rows.sum().clamp_min(torch.finfo(plan.dtype).tiny)
