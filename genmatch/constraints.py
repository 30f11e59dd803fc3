r"""Parts of the data that are known: held from start to end, while the rest is sampled given them.

    X_t = (a_t, free),    a_t = known(a, t, x0),    a_1 = a

What a state shows of known data `a` at time t is the path's to say. With the mask as source it is `a` itself, and that is
exact: the posterior of the rest given a token that is data is the one given the data. A path of vectors shows
alpha_t a + sigma_t x0, with one noise for the whole trajectory, as a network has seen it in training. That says less of `a`
than is known: early on the rest moves as if it were free, and the samples are approximate. So are they where tokens of
another source are shown as they are.

Source of the noisy kind: "Score-Based Generative Modeling through SDEs" (Song et al., 2021), https://arxiv.org/abs/2011.13456,
appendix I.2.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.paths import Path
from genmatch.reprs import described
from genmatch.spaces import ProductSpace, Space
from genmatch.tensors import State, batch_size, expand, leaves, tree_map

Keep = Callable[[State, Tensor], State]
"""States and times, (B,), to states that show what is known."""


class Known:
    """What is known of a number of samples. Made by `known`.

    Args:
        path: of the states.
        mask: True where a coordinate is known, boolean states of shape (n, *shape); None if nothing is.
        values: data points with the known values there, and any valid ones elsewhere, (n, *shape).
    """

    __repr__ = described

    def __init__(self, path: Path, mask: State | None = None, values: State | None = None) -> None:
        self.path, self.mask, self.values = path, mask, values

    def start(self, x0: State, rng: torch.Generator | None) -> Keep:
        """What holds the known part along trajectories from the states `x0`; draws the noise that goes with it."""
        if self.mask is None:
            return lambda x, t: x
        mask, values = tree_map(lambda m, v: m.to(v.device), self.mask, x0), self._like(x0, self.values)
        own_x0 = self._like(x0, self.path.source(batch_size(x0), rng=rng))
        seed = int(torch.randint(2**62, (), device=rng.device if rng else None, generator=rng))

        def keep(x: State, t: Tensor) -> State:
            same = torch.Generator(leaves(x)[0].device).manual_seed(seed)
            # Not every path ends in its data to the last digit.
            shown = tree_map(lambda a, a_t: torch.where(expand(t, a_t) == 1, a, a_t), values, self.path.known(values, t, own_x0, rng=same))
            return tree_map(torch.where, mask, shown, x)

        return keep

    def rows(self, rows: slice) -> Known:
        """What is known of some of the samples."""
        if self.mask is None:
            return self
        return Known(self.path, *(tree_map(lambda v: v[rows], part) for part in (self.mask, self.values)))

    def _like(self, x: State, given: State) -> State:
        """The states `given` on the device and in the precision of the states `x`."""
        cast = tree_map(lambda value, like: value.to(like), given, x)
        same = all(a.dtype == b.dtype for a, b in zip(leaves(given), leaves(cast), strict=True))
        return cast if same else self.path.space.settle(cast)


def known(path: Path, clamp: Any, n: int) -> Known:
    """What `clamp` says is known of `n` samples.

    Args:
        path: of the states.
        clamp: None for nothing; `{position: value}`, by position in the flattened state; a pair `(mask, values)`, the mask
            True where a value is known; or, for a product, `{modality: values}` with all of a modality, or any of these.
            A value, a mask and values are those of every sample, or of each of the `n`, along a leading axis.
        n: how many samples.

    Raises:
        GenmatchError: if a position is out of range or named twice, a modality is unknown, or a value is not data.

    Example:
        >>> from genmatch.paths import Mixture
        >>> keep = known(Mixture((3,), vocab_size=5), {0: 2, 2: 4}, 1).start(torch.tensor([[5, 5, 5]]), None)
        >>> keep(torch.tensor([[5, 1, 5]]), torch.tensor([0.5], dtype=torch.float64))
        tensor([[2, 1, 4]])
    """
    if clamp is None:
        return Known(path)
    if not isinstance(clamp, Mapping | tuple):
        raise GenmatchError(f"`clamp` must be {{position: value}}, (mask, values) or {{modality: values}}, got {type(clamp).__name__}.")
    mask, values = _read(path.data_space, clamp, n, "clamp")
    if reason := path.known_misfit(mask):
        raise GenmatchError(f"`clamp` does not fit {path}: {reason}.")
    return Known(path, mask, values)


def _read(space: Space, clamp: Any, n: int, name: str) -> tuple[State, State]:
    """The mask and the values, (n, *shape) each, or dictionaries of them."""
    if isinstance(space, ProductSpace):
        parts = {part: _read(space.parts[part], inner, n, label) for part, inner, label in _modalities(space, clamp, n, name)}
        return {part: mask for part, (mask, _) in parts.items()}, {part: values for part, (_, values) in parts.items()}
    shape: tuple[int, ...] = space.shape  # type: ignore[attr-defined]
    if isinstance(clamp, Mapping):
        return _positions(space, shape, clamp, n, name)
    pair = clamp if isinstance(clamp, tuple) and len(clamp) == 2 else (torch.ones(shape, dtype=torch.bool), clamp)
    return _masked(space, shape, pair, n, name)


def _masked(space: Space, shape: tuple[int, ...], pair: tuple[Any, Any], n: int, name: str) -> tuple[Tensor, Tensor]:
    mask, values = _batch(pair[0], shape, n, f"{name}[0]"), _batch(pair[1], shape, n, name)
    if mask.dtype != torch.bool:
        raise GenmatchError(f"`{name}[0]`, the mask, must be boolean, got {mask.dtype}; pass (mask, values), and `mask.bool()`.")
    coordinates = mask.flatten(1)
    if bool((coordinates.any(-1) & ~coordinates.all(-1)).any()):
        _check_coordinatewise(space, name)
    points = torch.where(mask, values, _filler(space))
    space.validate(points, name)
    return mask, points


def _modalities(space: ProductSpace, clamp: Any, n: int, name: str) -> Iterator[tuple[str, Any, str]]:
    """For each modality what is known of it, and how to call that."""
    if not isinstance(clamp, Mapping):
        raise GenmatchError(f"`{name}` must be {{modality: values}}, with modalities of {sorted(space.parts)}, got {type(clamp).__name__}.")
    if unknown := [key for key in clamp if key not in space.parts]:
        raise GenmatchError(f"`{name}` names the modality {unknown[0]!r}; there are {sorted(space.parts)}.")
    for part in space.parts:
        yield part, clamp.get(part, {}), f"{name}[{part!r}]"


def _positions(space: Space, shape: tuple[int, ...], clamp: Mapping[Any, Any], n: int, name: str) -> tuple[Tensor, Tensor]:
    if clamp:
        _check_coordinatewise(space, name)
    mask, points = torch.zeros(n, *shape, dtype=torch.bool), _filler(space).expand(n, *shape).clone()
    for position, value in clamp.items():
        label = f"{name}[{position!r}]"
        place = _place(position, space.size, label)
        if bool(mask.flatten(1)[0, place]):
            raise GenmatchError(f"`{label}` is position {place}, which `{name}` names twice; give one value.")
        here = torch.arange(space.size).reshape(shape) == place
        values = _batch(value, (), n, label).reshape(n, *[1] * len(shape))
        # Each by itself first, so that a wrong value is named.
        space.validate(torch.where(here, values, _filler(space)), label)
        mask, points = mask | here, torch.where(here, values, points)
    return mask, points


def _place(position: Any, size: int, label: str) -> int:
    try:
        place = operator.index(position)
    except TypeError:
        raise GenmatchError(f"`{label}` must name a position by an integer, got {type(position).__name__}.") from None
    if not 0 <= place < size:
        raise GenmatchError(f"`{label}` is out of range; positions of the flattened state are 0 to {size - 1}.")
    return place


def _batch(value: Any, shape: tuple[int, ...], n: int, label: str) -> Tensor:
    """A tensor (n, *shape), from one of that shape or of `shape`."""
    try:
        # Numbers in double precision: they are cast to that of the states.
        tensor = value.detach().cpu() if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError, RuntimeError):
        raise GenmatchError(f"`{label}` must be a tensor or a number, got {type(value).__name__}.") from None
    if tuple(tensor.shape) not in (shape, (n, *shape)):
        raise GenmatchError(f"`{label}` must have shape {shape}, or {(n, *shape)} for each of {n} samples, got {tuple(tensor.shape)}.")
    return tensor.expand(n, *shape)


def _filler(space: Space) -> Tensor:
    """One valid data point, to stand where nothing is known, (1, *shape)."""
    return space.random(1, rng=torch.Generator().manual_seed(0))


def _check_coordinatewise(space: Space, name: str) -> None:
    if not space.coordinatewise:
        raise GenmatchError(f"`{name}` holds some coordinates of a point of {space}, which are not free of each other; hold the whole point.")


__all__ = ["Keep", "Known", "known"]
