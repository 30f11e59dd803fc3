r"""Couplings: which noise of a batch goes with which data point.

    x_t = a path from x0 to x1,   (x0, x1) ~ pi,   with marginals pi(x0) = p_0 and pi(x1) = data

A flow may follow any joint law pi with these marginals: the marginal velocity still carries p_0 to the data. One that pairs near points
makes the paths straighter, so that fewer steps are enough. Pairs are made within a batch, where both marginals are kept exactly:

    assignment   the permutation that minimises sum_i |x0_perm(i) - x1_i|^2
    entropic     x0 drawn for each x1 from P = argmin <P, C> - epsilon H(P), with P 1 = P^T 1 = 1 / n

or they are given, one x0 beside each x1, such as the two ends of the trajectories of a trained flow (`gm.recipes.reflow`).

Under a condition c the start must be p_0 *given* c, for that is where sampling with c begins. Pairing across conditions breaks this: noise
on the left goes to the class on the left. So pairs are made among data points of equal condition only, which keeps pi(x0 given c) = p_0.

What is known of a path in closed form once x0 is averaged out (its density, the posterior of x1, the score) holds for noise that is
independent of the data, and is refused otherwise.

Sources: "Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport" (Tong et al., 2024),
https://arxiv.org/abs/2302.00482; "Multisample Flow Matching" (Pooladian et al., 2023), https://arxiv.org/abs/2304.14772; "Near-linear
Time Approximation Algorithms for Optimal Transport via Sinkhorn Iteration" (Altschuler et al., 2017),
https://arxiv.org/abs/1705.09634, algorithm 2, which makes the marginals exact.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, number_in
from genmatch.logits import draw_categorical
from genmatch.reprs import described
from genmatch.spaces import Space
from genmatch.tensors import State, batch_size

_ITERATIONS = 1000
_WARM_UP = 5
"""Rounds of Sinkhorn at the final epsilon at most, and at each of the larger ones before it."""
_TOLERANCE = 1e-7
"""In units of epsilon: where the potentials change by less, the rounds end."""


class Coupling(ABC):
    """How the noise of a batch is paired with its data points. Subclasses define `pair`, and keep the law of the noise given the condition."""

    @property
    def is_independent(self) -> bool:
        """Whether x0 is independent of x1: then densities, scores and posteriors are known."""
        return False

    @abstractmethod
    def pair(self, x0: State, x1: State, space: Space, condition: Mapping[str, Tensor], *, rng: torch.Generator | None = None) -> State:
        """The noise for each data point of `x1`, made from as many independent draws `x0`.

        Args:
            x0: draws from the source, (B, *shape).
            x1: data points, (B, *shape); never changed nor left out.
            space: where both live.
            condition: what the model is told of each data point, tensors (B, ...).
            rng: source of randomness.
        """


@dataclass(frozen=True)
class Independent(Coupling):
    """Noise that knows nothing of the data point: the default, and what every process accepts."""

    @property
    def is_independent(self) -> bool:
        return True

    def pair(self, x0: State, x1: State, space: Space, condition: Mapping[str, Tensor], *, rng: torch.Generator | None = None) -> State:
        return x0


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


class Pairs(Coupling):
    """Fixed pairs: the noise of a data point is what stands beside it; one of several, drawn with equal chances, if it stands there more than once.

    Training is then on the data points of the pairs and no others, as they are. That the noises together have the law of the source is
    up to who made them: those of `gm.recipes.reflow` were drawn from it.

    Args:
        x0: noise, (N, *shape).
        x1: the data point that each belongs to, (N, *shape).
        condition: what the model was told of each when the pairs were made, tensors (N, ...) by name: equal data points
            under another condition are others.

    Raises:
        GenmatchError: if there is no pair, or the parts do not fit each other; later, for a data point or a condition that is in no pair.

    Example:
        >>> from genmatch.paths import Gaussian
        >>> x1 = torch.tensor([[3.0], [-3.0]])
        >>> path = Gaussian((1,), coupling=Pairs(torch.tensor([[0.5], [-0.1]]), x1))
        >>> path.start(x1.flip(0))
        tensor([[-0.1000],
                [ 0.5000]])
    """

    def __init__(self, x0: Tensor, x1: Tensor, condition: Mapping[str, Tensor] | None = None) -> None:
        for name, value in {"x0": x0, "x1": x1}.items():
            if not isinstance(value, Tensor) or value.dim() == 0 or len(value) == 0:
                found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                raise GenmatchError(f"`{name}` must be a tensor with at least one pair along its first axis, got {found}.")
        if x0.shape != x1.shape or x0.dtype != x1.dtype:
            raise GenmatchError(f"`x0` and `x1` must be of one shape and type, got {tuple(x0.shape)} of {x0.dtype} and {tuple(x1.shape)} of {x1.dtype}.")
        self.x0, self.dtype, self.names = x0, x1.dtype, sorted(condition or {})
        self._places: dict[bytes, list[int]] = {}
        for place, key in enumerate(_keys(x1, condition or {})):
            self._places.setdefault(key, []).append(place)

    def __repr__(self) -> str:
        return f"Pairs({len(self.x0)})"

    def pair(self, x0: State, x1: State, space: Space, condition: Mapping[str, Tensor], *, rng: torch.Generator | None = None) -> Tensor:
        """The noise beside each data point; the draws `x0` are not used.

        Raises:
            GenmatchError: for a data point that is in no pair, to the last bit, or other conditions than those of the pairs.
        """
        if sorted(condition) != self.names:
            raise GenmatchError(f"the pairs were made under the conditions {self.names}, and the data have {sorted(condition)}; pass the data of the pairs.")
        if x1.dtype != self.dtype:
            raise GenmatchError(f"the pairs are of {self.dtype}, and the data of {x1.dtype}; make them in the precision of the path.")
        found = [self._places.get(key) for key in _keys(x1, condition)]
        if None in found:
            raise GenmatchError(
                f"{found.count(None)} of {len(found)} data points are in none of the {len(self.x0)} pairs, and no noise is known for them; "
                "train on the data points of the pairs, as they are."
            )
        share = torch.rand(len(found), dtype=torch.float64, device=rng.device if rng else None, generator=rng).tolist()
        index = [places[int(u * len(places))] for u, places in zip(share, found, strict=True) if places]
        return self.x0[torch.tensor(index, device=self.x0.device)].to(x1.device)


class Parts(Coupling):
    """The couplings of the modalities of a product, of which at most one may depend on the data.

    With two, x0 of one modality would tell of x1 there, hence of x1 and of x0 in the other: their joint law would no longer be the product
    of sources from which sampling starts.

    Args:
        couplings: by name of the modality.

    Raises:
        GenmatchError: if two or more are not independent.
    """

    __repr__ = described

    def __init__(self, couplings: Mapping[str, Coupling]) -> None:
        self.parts = dict(couplings)
        coupled = [name for name, coupling in self.parts.items() if not coupling.is_independent]
        if len(coupled) > 1:
            raise GenmatchError(
                f"at most one part of a product may have a coupling, got {', '.join(f'`{name}`' for name in coupled)}: each ties its noise to the "
                "data, so their noises would depend on each other, and sampling starts from independent ones; leave the coupling to one part."
            )

    @property
    def is_independent(self) -> bool:
        return all(coupling.is_independent for coupling in self.parts.values())

    def pair(self, x0: State, x1: State, space: Any, condition: Mapping[str, Tensor], *, rng: torch.Generator | None = None) -> State:
        return {name: coupling.pair(x0[name], x1[name], space.parts[name], condition, rng=rng) for name, coupling in self.parts.items()}


def check_coupling(coupling: Coupling) -> Coupling:
    """Returns `coupling`, or raises `GenmatchError` if it is not one."""
    if not isinstance(coupling, Coupling):
        raise GenmatchError(f"`coupling` must be a Coupling, got {coupling!r}; pass e.g. `gm.couplings.OptimalTransport()`.")
    return coupling


def _keys(x1: Tensor, condition: Mapping[str, Tensor]) -> list[bytes]:
    """The bytes of each data point with what is told of it: equal for equal ones only."""
    parts = [x1, *(condition[name] for name in sorted(condition))]
    columns = [part.detach().cpu().reshape(len(x1), -1).contiguous().view(torch.uint8).numpy() for part in parts]
    return [b"".join(part.tobytes() for part in row) for row in zip(*columns, strict=True)]


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


__all__ = ["Coupling", "Independent", "OptimalTransport", "Pairs", "Parts", "Sinkhorn", "Transport", "check_coupling"]
