"""The spaces without curvature: vectors, tokens, and several side by side; and what every space can do."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, positive_integer
from genmatch.spaces.reference import Reference, normal_like, product, tokens_like
from genmatch.tensors import State, batch_size, tree_map

TestFunction = Callable[[State], Tensor]
"""f: a batch of states to values of shape (B,)."""


def check_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns `shape` as a tuple of positive integers, or raises `GenmatchError`."""
    try:
        checked = tuple(positive_integer(n, "shape") for n in shape)
    except (TypeError, GenmatchError):
        checked = ()
    if not checked:
        raise GenmatchError(f"`shape` must be a tuple of positive integers, got {shape!r}; pass e.g. (1, 8, 8).")
    return checked


class Space(ABC):
    """Where states live. A batch of states has a leading batch axis B."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of coordinates of one state."""

    @abstractmethod
    def validate(self, x: State, name: str = "x") -> State:
        """Returns `x` unchanged if it is a batch of states here.

        Raises:
            GenmatchError: if the type, dtype, shape or values do not fit, saying what was expected and how to mend it.
        """

    @abstractmethod
    def prepare(self, data: Any, name: str = "data") -> State:
        """Turns arrays or tensors into a valid batch of states in the dtype of this space."""

    @property
    def coordinatewise(self) -> bool:
        """Whether a state with some coordinates of another is a state: not on a sphere."""
        return True

    def settle(self, x: State) -> State:
        """States that were cast to another precision, as exactly in the space as that allows: `x` itself on flat spaces."""
        return x

    def project(self, x: State, v: State) -> State:
        """The direction that the space has at the states `x` and that is nearest to `v`, (B, *shape): `v` itself on flat spaces."""
        return v

    def complete(self, x: State, token: int) -> State:
        """States on the way as data of this space: what is no data yet, such as a mask, stands as `token`. Nothing to do without tokens."""
        return x

    @abstractmethod
    def random(self, n: int, *, rng: torch.Generator | None = None) -> State:
        """`n` arbitrary states that fill the space, for checks and examples."""

    @abstractmethod
    def test_functions(self, n: int, *, rng: torch.Generator | None = None) -> list[TestFunction]:
        """`n` random smooth functions of states with values in [-1, 1], rich enough to tell two laws apart."""

    def squared_distances(self, x: State, y: State) -> Tensor:
        """Squared distance of every state of `x` from every state of `y`, float64, (N, M). Optional."""
        raise GenmatchError(f"{self} has no distance between states.")

    def reference(self, x: State) -> Reference:
        """A law of known density that resembles the states `x`, against which other densities are measured. Optional."""
        raise GenmatchError(f"{self} names no law of known density.")

    @property
    def cardinality(self) -> float:
        """Number of different states; infinite unless `enumerate` can list them."""
        return math.inf

    def enumerate(self, limit: int = 20_000) -> State:
        """Every state, if there are finitely many.

        Raises:
            GenmatchError: if there are more than `limit`.
        """
        raise GenmatchError(f"{self} has no list of its states; only finite spaces do.")

    def index(self, x: State) -> Tensor:
        """The row of `enumerate()` at which each state stands, shape (B,).

        Raises:
            GenmatchError: if there is no such list.
        """
        raise GenmatchError(f"{self} has no list of its states; only finite spaces do.")


def _wave(frequency: Tensor, phase: Tensor) -> TestFunction:
    def f(x: Tensor) -> Tensor:
        return torch.cos(x.flatten(1) @ frequency.to(x.dtype) + phase.to(x.dtype))

    return f


def _token_wave(angle: Tensor) -> TestFunction:
    """cos(sum_j angle[j, x_j])."""
    position = torch.arange(len(angle))

    def f(x: Tensor) -> Tensor:
        return torch.cos(angle[position, x.flatten(1)].sum(-1))

    return f


def _product(parts: dict[str, TestFunction]) -> TestFunction:
    def f(x: State) -> Tensor:
        return torch.stack([part(x[name]) for name, part in parts.items()]).prod(0)

    return f


def _as_tensor(data: Any, name: str) -> Tensor:
    try:
        return torch.as_tensor(data)
    except (TypeError, ValueError, RuntimeError) as error:
        raise GenmatchError(f"`{name}` must be a tensor or an array, got {type(data).__name__} ({error}).") from None


def _check_batch(x: Any, shape: tuple[int, ...], name: str) -> None:
    if not isinstance(x, Tensor):
        raise GenmatchError(f"`{name}` must be a torch.Tensor, got {type(x).__name__}; pass `torch.as_tensor({name})`.")
    if x.dim() == 0 or tuple(x.shape[1:]) != shape:
        mend = f"`{name}.reshape(-1, *{shape})`" if x.numel() % math.prod(shape) == 0 else f"a process on states of shape {tuple(x.shape[1:])}"
        wanted = ", ".join(["B", *map(str, shape)])
        raise GenmatchError(f"`{name}` must have shape ({wanted}), got {tuple(x.shape)}; pass {mend}.")
    if len(x) == 0:
        raise GenmatchError(f"`{name}` must hold at least one state, got shape {tuple(x.shape)}.")


@dataclass(frozen=True)
class Euclidean(Space):
    """Real vectors or images, R^d with d = prod(shape).

    Args:
        shape: the shape of one state, such as (2,) or (1, 8, 8).
        dtype: of the noise that starts a path, and of prepared data. States of other floating dtypes are valid too.

    Example:
        >>> Euclidean((2,)).validate(torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", check_shape(self.shape))
        if not isinstance(self.dtype, torch.dtype) or not self.dtype.is_floating_point:
            raise GenmatchError(f"`dtype` of a Euclidean space must be floating, got {self.dtype!r}; pass torch.float32.")

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def validate(self, x: State, name: str = "x") -> Tensor:
        _check_batch(x, self.shape, name)
        if not x.is_floating_point():
            raise GenmatchError(f"`{name}` must be floating for {self}, got {x.dtype}; pass `{name}.float()`.")
        finite = torch.isfinite(x)
        if not bool(finite.all()):
            where = tuple(int(i) for i in (~finite).nonzero()[0])
            count = int((~finite).sum())
            raise GenmatchError(f"`{name}` must be finite, got {count} value(s) that are not, the first at {where}; clean the data first.")
        return x

    def prepare(self, data: Any, name: str = "data") -> Tensor:
        return self.validate(_as_tensor(data, name), name).to(self.dtype)

    def random(self, n: int, *, rng: torch.Generator | None = None) -> Tensor:
        return torch.randn(n, *self.shape, dtype=self.dtype, generator=rng, device=rng.device if rng else None)

    def squared_distances(self, x: Tensor, y: Tensor) -> Tensor:
        # By differences: through scalar products near points would lose their digits.
        return torch.cdist(x.double().flatten(1), y.double().flatten(1), compute_mode="donot_use_mm_for_euclid_dist") ** 2

    def reference(self, x: Tensor) -> Reference:
        return normal_like(x)

    def test_functions(self, n: int, *, rng: torch.Generator | None = None) -> list[TestFunction]:
        """Cosines of random directions, with angular frequencies in [0.8, 2]."""
        direction = torch.randn(n, self.size, dtype=torch.float64, generator=rng)
        frequency = 0.8 + 1.2 * torch.rand(n, 1, dtype=torch.float64, generator=rng)
        phase = 2 * math.pi * torch.rand(n, dtype=torch.float64, generator=rng)
        return [_wave(w, b) for w, b in zip(frequency * direction / direction.norm(dim=1, keepdim=True), phase, strict=True)]


@dataclass(frozen=True)
class Categorical(Space):
    """Sequences or grids of tokens 0 .. vocab_size - 1, and the mask state vocab_size if there is one.

    Args:
        shape: the shape of one state, such as (256,) for text.
        vocab_size: number of tokens V of the data.
        mask: whether the states also include the mask, as state V.

    Example:
        >>> space = Categorical((3,), vocab_size=2, mask=True)
        >>> space.num_states, space.mask_id, len(space.enumerate())
        (3, 2, 27)
    """

    shape: tuple[int, ...]
    vocab_size: int
    mask: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", check_shape(self.shape))
        object.__setattr__(self, "vocab_size", positive_integer(self.vocab_size, "vocab_size"))

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def num_states(self) -> int:
        """States a position: V, or V + 1 with the mask."""
        return self.vocab_size + self.mask

    @property
    def mask_id(self) -> int:
        """The state that stands for "not yet known".

        Raises:
            GenmatchError: if there is no mask.
        """
        if not self.mask:
            raise GenmatchError(f"{self} has no mask; use a path with source='mask'.")
        return self.vocab_size

    @property
    def cardinality(self) -> int:
        """Number of different states, num_states ** size."""
        return self.num_states**self.size

    def validate(self, x: State, name: str = "x") -> Tensor:
        _check_batch(x, self.shape, name)
        if x.dtype != torch.int64:
            raise GenmatchError(f"`{name}` must hold int64 tokens for {self}, got {x.dtype}; pass `{name}.long()`.")
        low, high = int(x.min()), int(x.max())
        if low < 0 or high >= self.num_states:
            extra = " (the mask is not data)" if high == self.vocab_size and not self.mask else ""
            found = low if low < 0 else high
            raise GenmatchError(
                f"`{name}` must hold tokens 0 to {self.num_states - 1}, got {found}{extra}; "
                f"check the tokeniser or set vocab_size to at least {max(high, 0) + 1}."
            )
        return x

    def complete(self, x: State, token: int) -> Tensor:
        return x.masked_fill(x >= self.vocab_size, min(token, self.vocab_size - 1))

    def prepare(self, data: Any, name: str = "data") -> Tensor:
        data = _as_tensor(data, name)
        if data.is_floating_point() or data.is_complex() or data.dtype == torch.bool:
            raise GenmatchError(f"`{name}` must hold integer tokens for {self}, got {data.dtype}; round and pass `.long()`.")
        return self.validate(data.to(torch.int64), name)

    def reference(self, x: Tensor) -> Reference:
        return tokens_like(x, self.num_states)

    def random(self, n: int, *, rng: torch.Generator | None = None) -> Tensor:
        return torch.randint(self.num_states, (n, *self.shape), generator=rng, device=rng.device if rng else None)

    def test_functions(self, n: int, *, rng: torch.Generator | None = None) -> list[TestFunction]:
        """Cosines of a sum of random angles, one for each token: of all positions and of two of them in turn."""
        functions = []
        for i in range(n):
            used = torch.randperm(self.size, generator=rng)[: self.size if i % 2 == 0 else 2]
            angle = torch.zeros(self.size, self.num_states, dtype=torch.float64)
            angle[used] = torch.randn(len(used), self.num_states, dtype=torch.float64, generator=rng) * (2 / len(used)) ** 0.5
            functions.append(_token_wave(angle))
        return functions

    def enumerate(self, limit: int = 20_000) -> Tensor:
        """Every state, shape (cardinality, *shape), the last position changing fastest.

        Raises:
            GenmatchError: if there are more than `limit`.
        """
        if self.cardinality > limit:
            raise GenmatchError(f"{self} has {self.cardinality} states, more than {limit}; use fewer positions or tokens.")
        states = itertools.product(range(self.num_states), repeat=self.size)
        return torch.tensor(list(states)).reshape(-1, *self.shape)

    def index(self, x: Tensor) -> Tensor:
        """The row of `enumerate()` at which each state stands, shape (B,)."""
        powers = self.num_states ** torch.arange(self.size - 1, -1, -1, device=x.device)
        return (x.flatten(1) * powers).sum(-1)


class ProductSpace(Space):
    """Several modalities side by side; a state is a dictionary with one state for each.

    Args:
        spaces: the parts by name, such as `image=Euclidean((1, 8, 8)), text=Categorical((4,), 27)`.

    Raises:
        GenmatchError: if there is no part.

    Example:
        >>> space = ProductSpace(image=Euclidean((2,)), text=Categorical((3,), 5))
        >>> sorted(space.random(4))
        ['image', 'text']
    """

    def __init__(self, **spaces: Space) -> None:
        if not spaces:
            raise GenmatchError("`ProductSpace` needs at least one part; pass e.g. `image=Euclidean((1, 8, 8))`.")
        self.parts: Mapping[str, Space] = spaces

    def __repr__(self) -> str:
        return f"ProductSpace({', '.join(f'{name}={space}' for name, space in self.parts.items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProductSpace) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(tuple(self.parts.items()))

    @property
    def size(self) -> int:
        return sum(space.size for space in self.parts.values())

    def _zip(self, x: State, name: str) -> Iterator[tuple[str, Space, Any, str]]:
        if not isinstance(x, Mapping) or set(x) != set(self.parts):
            found = sorted(x) if isinstance(x, Mapping) else type(x).__name__
            raise GenmatchError(f"`{name}` must be a dictionary with keys {sorted(self.parts)}, got {found}.")
        for part, space in self.parts.items():
            yield part, space, x[part], f"{name}[{part!r}]"

    def _same_length(self, state: dict[str, State], name: str) -> dict[str, State]:
        lengths = {part: batch_size(value) for part, value in state.items()}
        if len(set(lengths.values())) > 1:
            raise GenmatchError(f"the parts of `{name}` must have the same number of samples, got {lengths}.")
        return state

    def validate(self, x: State, name: str = "x") -> State:
        return self._same_length({part: space.validate(value, label) for part, space, value, label in self._zip(x, name)}, name)

    def prepare(self, data: Any, name: str = "data") -> State:
        return self._same_length({part: space.prepare(value, label) for part, space, value, label in self._zip(data, name)}, name)

    def complete(self, x: State, token: int) -> State:
        return {name: space.complete(x[name], token) for name, space in self.parts.items()}

    def settle(self, x: State) -> State:
        return {name: space.settle(x[name]) for name, space in self.parts.items()}

    def reference(self, x: State) -> Reference:
        return product({name: space.reference(x[name]) for name, space in self.parts.items()})

    def random(self, n: int, *, rng: torch.Generator | None = None) -> State:
        return {name: space.random(n, rng=rng) for name, space in self.parts.items()}

    def test_functions(self, n: int, *, rng: torch.Generator | None = None) -> list[TestFunction]:
        """Products of a function of each part."""
        columns = {name: space.test_functions(n, rng=rng) for name, space in self.parts.items()}
        return [_product({name: column[i] for name, column in columns.items()}) for i in range(n)]

    @property
    def cardinality(self) -> float:
        return math.prod(space.cardinality for space in self.parts.values())

    def enumerate(self, limit: int = 20_000) -> State:
        """Every state, if all parts are finite, the last part changing fastest."""
        if self.cardinality > limit:
            raise GenmatchError(f"{self} has {self.cardinality} states, more than {limit}; use smaller parts.")
        lists = [space.enumerate(limit) for space in self.parts.values()]
        rows = torch.cartesian_prod(*(torch.arange(batch_size(states)) for states in lists)).reshape(-1, len(lists))
        return {name: tree_map(lambda v, i=i: v[rows[:, i]], states) for i, (name, states) in enumerate(zip(self.parts, lists, strict=True))}

    def index(self, x: State) -> Tensor:
        total = torch.zeros(batch_size(x), dtype=torch.int64)
        for name, space in self.parts.items():
            total = total * int(space.cardinality) + space.index(x[name])
        return total
