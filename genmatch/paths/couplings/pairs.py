"""Pairs that are given: one x0 beside each x1, such as the two ends of the trajectories of a trained flow."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.paths.couplings.base import Coupling
from genmatch.spaces import Space
from genmatch.tensors import State


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


def _keys(x1: Tensor, condition: Mapping[str, Tensor]) -> list[bytes]:
    """The bytes of each data point with what is told of it: equal for equal ones only."""
    parts = [x1, *(condition[name] for name in sorted(condition))]
    columns = [part.detach().cpu().reshape(len(x1), -1).contiguous().view(torch.uint8).numpy() for part in parts]
    return [b"".join(part.tobytes() for part in row) for row in zip(*columns, strict=True)]
