r"""Products: one process for each modality, side by side.

Given the data point the modalities move independently, so the conditional generator is a sum in which each part moves its own
modality, $\mathcal L = \sum_m \mathcal L^m \otimes I$. Averaging keeps that form, with every posterior mean given the *whole*
state: each head of the network must see all modalities, and then they come out consistent. A head that sees only its own
generates each modality by itself.

Source: "Generator Matching" (Holderrieth et al., ICLR 2025), https://arxiv.org/abs/2410.20587, section 5.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.generators import Generator, KroneckerSum
from genmatch.paths.product import Product as ProductPath
from genmatch.processes.base import LogWeight, MarkovProcess
from genmatch.spaces import ProductSpace
from genmatch.tensors import State, tree_map


class Product(MarkovProcess):
    """Several modalities generated together; states, data and outputs are dictionaries.

    One step moves all modalities with heads that are evaluated at the same states and times.

    Args:
        processes: the processes by name of the modality; products themselves may be parts.

    Raises:
        GenmatchError: if there is no part, or a part is not a process.

    Example:
        >>> import genmatch as gm
        >>> image, text = gm.Flow(gm.paths.Gaussian((2,))), gm.CTMC(gm.paths.Mixture((3,), vocab_size=5))
        >>> gm.Product(image=image, text=text).output_shape
        {'image': (2,), 'text': (3, 5)}
    """

    def __init__(self, **processes: MarkovProcess) -> None:
        if not processes:
            raise GenmatchError("`Product` needs at least one part; pass e.g. `image=gm.Flow(...), text=gm.CTMC(...)`.")
        if wrong := [name for name, part in processes.items() if not isinstance(part, MarkovProcess)]:
            raise GenmatchError(f"the parts of a product must be processes, got {processes[wrong[0]]!r} for `{wrong[0]}`.")
        self.parts = processes
        self.path = ProductPath(**{name: part.path for name, part in processes.items()})
        self.t_min = max(part.t_min for part in processes.values())

    def __repr__(self) -> str:
        return f"Product({', '.join(f'{name}={part}' for name, part in self.parts.items())})"

    @property
    def kinds(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({"product"}).union(*(part.kinds for part in self.parts.values()))

    @property
    def data_space(self) -> ProductSpace:
        return ProductSpace(**{name: part.data_space for name, part in self.parts.items()})

    @property
    def output_shape(self) -> Mapping[str, Any]:
        return {name: part.output_shape for name, part in self.parts.items()}

    @property
    def caveats(self) -> Mapping[str, str]:
        return {check: f"{name}: {reason}" for name, part in self.parts.items() for check, reason in part.caveats.items()}

    def supports(self, ability: str) -> bool:
        return super().supports(ability) and all(part.supports(ability) for part in self.parts.values())

    def target(self, x: State, t: Tensor, x1: State, *, x0: State | None = None) -> State:
        """The target of each part, by name."""
        return {name: part.target(x[name], t, x1[name], x0=None if x0 is None else x0[name]) for name, part in self.parts.items()}

    def generator(self, output: State, x: State, t: Tensor) -> Generator:
        return KroneckerSum(**{name: part.generator(output[name], x[name], t) for name, part in self.parts.items()})

    def natural_at(self, target: State, x: State, t: Tensor) -> State:
        return {name: part.natural_at(target[name], x[name], t) for name, part in self.parts.items()}

    def mean_at(self, output: State, x: State, t: Tensor) -> State:
        return {name: part.mean_at(output[name], x[name], t) for name, part in self.parts.items()}

    def average(self, targets: State, weights: Tensor) -> State:
        return {name: part.average(targets[name], weights) for name, part in self.parts.items()}

    def divergence(self, target: State, output: State, x: State, t: Tensor) -> Tensor:
        """The sum of the parts' divergences, (B,)."""
        return functools.reduce(operator.add, (part.divergence(target[name], output[name], x[name], t) for name, part in self.parts.items()))

    def tilted(self, output: State, x: State, t: Tensor, log_weight: LogWeight) -> State:
        """Of each part, with the others held as they are: a weight of the whole state says of one part what it says given the others."""

        def of(name: str) -> LogWeight:
            return lambda value, rows: log_weight({**tree_map(lambda v: v[rows], x), name: value}, rows)

        return {name: part.tilted(output[name], x[name], t, of(name)) for name, part in self.parts.items()}

    @property
    def tilt_misfit(self) -> str | None:
        return next((f"the part `{name}`: {part.tilt_misfit}" for name, part in self.parts.items() if part.tilt_misfit), None)

    @property
    def has_noise(self) -> bool:
        return all(part.has_noise for part in self.parts.values())

    def bounded(self) -> MarkovProcess:
        return Product(**{name: part.bounded() for name, part in self.parts.items()})

    @property
    def bound(self) -> str:
        return f"Product({', '.join(f'{name}={part.bound}' for name, part in self.parts.items())})"

    @property
    def bound_is_tight(self) -> bool:
        return all(part.bound_is_tight for part in self.parts.values())

    def kl_rate(self, output: State, x: State, t: Tensor, x1: State) -> Tensor:
        return functools.reduce(operator.add, (part.kl_rate(output[name], x[name], t, x1[name]) for name, part in self.parts.items()))

    def finish_nats(self, output: State, x: State, t: Tensor, x1: State) -> Tensor:
        return functools.reduce(operator.add, (part.finish_nats(output[name], x[name], t, x1[name]) for name, part in self.parts.items()))

    def transition(self, output: State, x: State, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> State:
        return {name: part.transition(output[name], x[name], t, s, rng=rng) for name, part in self.parts.items()}

    def finish(self, output: State, x: State, t: Tensor, *, rng: torch.Generator | None = None) -> State:
        return {name: part.finish(output[name], x[name], t, rng=rng) for name, part in self.parts.items()}
