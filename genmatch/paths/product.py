r"""Several modalities side by side, independent given the data point:

    p_t(x | x1) = prod_m p_t^m(x^m | x1^m)

Each modality has a path of its own, with its own schedule. Over a data set the modalities depend on each other.

Source: "Generator Matching" (Holderrieth et al., ICLR 2025), https://arxiv.org/abs/2410.20587, section 5.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.paths.base import Path
from genmatch.paths.couplings import Parts
from genmatch.spaces import ProductSpace
from genmatch.tensors import State


class Product(Path):
    """One path for each modality; states are dictionaries.

    Args:
        paths: the paths by name of the modality; products themselves may be parts.

    Raises:
        GenmatchError: if there is no part, a part is not a path, or two have a coupling.

    Example:
        >>> from genmatch.paths import Gaussian, Mixture
        >>> path = Product(image=Gaussian((2,)), text=Mixture((3,), vocab_size=5))
        >>> path.source(1, rng=torch.Generator().manual_seed(0))["text"]
        tensor([[5, 5, 5]])
    """

    space: ProductSpace

    def __init__(self, **paths: Path) -> None:
        if wrong := [name for name, path in paths.items() if not isinstance(path, Path)]:
            raise GenmatchError(f"the parts of a product of paths must be paths, got {paths[wrong[0]]!r} for `{wrong[0]}`.")
        self.parts = paths
        self.coupling = Parts({name: path.coupling for name, path in paths.items()})
        self.space = ProductSpace(**{name: path.space for name, path in paths.items()})

    def __repr__(self) -> str:
        return f"Product({', '.join(f'{name}={path}' for name, path in self.parts.items())})"

    @property
    def signature(self) -> tuple[object, ...]:
        return type(self), *((name, path.signature) for name, path in self.parts.items())

    @property
    def data_space(self) -> ProductSpace:
        return ProductSpace(**{name: path.data_space for name, path in self.parts.items()})

    @property
    def caveats(self) -> Mapping[str, str]:
        return {check: f"{name}: {reason}" for name, path in self.parts.items() for check, reason in path.caveats.items()}

    @property
    def has_log_prob(self) -> bool:
        return all(path.has_log_prob for path in self.parts.values())

    def known(self, x1: State, t: Tensor, x0: State, *, rng: torch.Generator | None = None) -> State:
        return {name: path.known(x1[name], t, x0[name], rng=rng) for name, path in self.parts.items()}

    @property
    def t_end(self) -> float:  # type: ignore[override]
        return min(path.t_end for path in self.parts.values())

    def source_nats(self, x1: State, t: float) -> Tensor:
        return functools.reduce(operator.add, (path.source_nats(x1[name], t) for name, path in self.parts.items()))

    def _source(self, n: int, rng: torch.Generator | None) -> State:
        return {name: path.source(n, rng=rng) for name, path in self.parts.items()}

    def _sample(self, x1: State, t: Tensor, x0: State | None, rng: torch.Generator | None) -> State:
        return {name: path.sample(x1[name], t, x0=None if x0 is None else x0[name], rng=rng) for name, path in self.parts.items()}

    def _log_prob(self, x: State, t: Tensor, x1: State) -> Tensor:
        return functools.reduce(operator.add, (path.log_prob(x[name], t, x1[name]) for name, path in self.parts.items()))
