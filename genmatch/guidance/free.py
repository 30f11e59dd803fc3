r"""Classifier-free guidance: arithmetic on natural parameters, whatever they are of.

    output = u + w (c - u)

with $c$ what the network says given the condition and $u$ what it says without. Predictions of the velocity, the data, the noise
and the score lead to the same guided process, since they convert into each other with one coefficient of $x$; for logits it is the
normalised posterior $\pi_c^w \pi_u^{1-w}$, in which a token that either excludes stays excluded.
At w = 1 the output is $c$, and at w = 0 it is $u$, to the last bit.

Sources: "Classifier-Free Diffusion Guidance" (Ho & Salimans, 2022), https://arxiv.org/abs/2207.12598; the interval: "Applying
Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion Models" (Kynkäänniemi et al., 2024),
https://arxiv.org/abs/2404.07724; `rescale`: "Common Diffusion Noise Schedules and Sample Steps are Flawed" (Lin et al., 2024),
https://arxiv.org/abs/2305.08891, section 3.4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, number_in
from genmatch.lazy import is_split
from genmatch.models import Model, null_of
from genmatch.reprs import arguments
from genmatch.tensors import State, expand, leaves, tree_map

Without = Callable[[State, dict[str, Any]], tuple[State, dict[str, Any]]]
"""States and conditions to those of the call that is told of no condition."""


class ClassifierFree(torch.nn.Module):
    """A model that is guided by what it says without the condition. Built by `classifier_free`.

    Args:
        model: the network.
        scale: w; 1 is the condition, 0 none.
        without: what the call without a condition gets.
        interval: the times at which guidance acts.
        rescale: share in which the result is brought back to the size of the conditional output.
    """

    extra_repr = arguments

    def __init__(self, model: Model, scale: float, without: Without, interval: tuple[float, float], rescale: float) -> None:
        super().__init__()
        self.model, self.scale, self.without, self.interval, self.rescale = model, scale, without, interval, rescale
        # An interval makes the output depend on the time.
        self.time_free = bool(getattr(model, "time_free", False)) and interval == (0.0, 1.0)
        if is_split(model):
            # A split model stays one: a position is known with and without the condition, and whether it is guided.
            self.features, self.head = self._features, self._head

    def forward(self, x: State, t: Tensor, **condition: Any) -> State:
        """The guided output at states `x` and times `t`, (B,)."""
        weight = torch.where(self._inside(t), self.scale, 1.0)
        if bool((weight == 1).all()):
            return self.model(x, t, **condition)
        free = self._call(self.model, x, t, condition)
        if bool((weight == 0).all()):
            return free
        return tree_map(lambda c, u: self._rescaled(c, combine(c, u, weight), x), self.model(x, t, **condition), free)

    def _features(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """Features with and without the condition, and a flag, (B, L, 2 width + 1)."""
        model, inside = self.model, self._inside(t)
        given = model.features(x, t, **condition)  # type: ignore[attr-defined]
        free = self._call(model.features, x, t, condition) if bool(inside.any()) else given  # type: ignore[attr-defined]
        return torch.cat([given, free, expand(inside, given).to(given.dtype).expand(*given.shape[:-1], 1)], -1)

    def _head(self, known: Tensor) -> Tensor:
        """The guided output of positions, (N, V)."""
        width = known.shape[-1] // 2
        given, free, flag = known.split([width, width, 1], -1)
        output = self.model.head(given)  # type: ignore[attr-defined]
        if not bool((flag != 0).any()):
            return output
        weight = torch.where(flag != 0, self.scale, 1.0)
        return combine(output, self.model.head(free), weight)  # type: ignore[attr-defined]

    def _call(self, function: Model, x: State, t: Tensor, condition: dict[str, Any]) -> Any:
        hidden, unconditional = self.without(x, condition)
        return function(hidden, t, **unconditional)

    def _inside(self, t: Tensor) -> Tensor:
        """Where guidance acts, (B,)."""
        low, high = self.interval
        return (t >= low) & (t < high) & (self.scale != 1)

    def _rescaled(self, given: Tensor, guided: Tensor, x: State) -> Tensor:
        """The guided output with part of its spread brought back to that of the conditional one."""
        if not self.rescale:
            return guided
        if not all(leaf.is_floating_point() for leaf in leaves(x)):
            raise GenmatchError("`rescale` brings back the spread of vectors; logits have none that means anything: use rescale=0 for tokens.")
        before, after = (expand(value.flatten(1).std(-1), value) for value in (given, guided))
        return guided * (self.rescale * torch.where(after > 0, before / after, 1) + 1 - self.rescale)


def combine(given: Tensor, free: Tensor, weight: Tensor | float) -> Tensor:
    """u + w (c - u), and c or u itself where w is 1 or 0.

    Args:
        given: c, (B, ...).
        free: u, likewise.
        weight: w, a number or (B,).

    Example:
        >>> combine(torch.tensor([[3.0, -torch.inf]]), torch.tensor([[1.0, 0.0]]), 2.0)
        tensor([[5., -inf]])
    """
    w = expand(torch.as_tensor(weight, dtype=torch.float64, device=given.device), given)
    guided = torch.where(given.isneginf() | free.isneginf(), -torch.inf, free + w * (given - free))
    return torch.where(w == 1, given, torch.where(w == 0, free, guided))


def classifier_free(model: Model, scale: float = 2.0, null: Any = None, *, interval: tuple[float, float] = (0.0, 1.0), rescale: float = 0.0) -> ClassifierFree:
    """A model that is guided towards its condition: for every process, solver and kind of output.

    The condition is passed to `sample` as ever. One call of the guided model is two of the network, unless the weight is 1 or 0.

    Args:
        model: a network that knows what to say without a condition, such as one trained with `drop_condition`.
        scale: the weight w, at least 0: 1 is the condition, 0 no condition.
        null: what the call without a condition gets. `{name: value}` puts a value in the place of a condition, None leaves it out,
            and a name that is not listed is passed on; a bare number or tensor is meant for the condition named `condition`. A
            function takes states and conditions and returns both, e.g. to hide a known part of a text. By default what the model
            declares as `model.null`; if it declares nothing, every condition is left out.
        interval: times [low, high) at which guidance acts; elsewhere the weight is 1.
        rescale: the share in [0, 1] of the spread of each output that is brought back to that of the conditional one, against
            the overshoot of large weights. For vectors.

    Raises:
        GenmatchError: if an argument is out of range; when called, if `null` names a condition that is not given.

    Example:
        >>> model = classifier_free(lambda x, t, label=0.0: x + label, scale=3.0)
        >>> model(torch.zeros(1, 1), torch.zeros(1), label=1.0)
        tensor([[3.]])
    """
    if not callable(model):
        raise GenmatchError(f"`model` must be callable as model(x, t, **condition), got {type(model).__name__}.")
    rescale = number_in("[0, 1]", rescale, "rescale", "0 rescales nothing")
    return ClassifierFree(model, check_scale(scale), without(model, null), check_interval(interval), rescale)


def without(model: Model, null: Any) -> Without:
    """What the call without a condition gets, from what a user says of it; see `classifier_free`.

    Args:
        model: a network, which may declare `null`.
        null: what stands for no condition; that of the model if None.

    Raises:
        GenmatchError: if `null` stands in for a condition that is not given.
    """
    null = null_of(model) if null is None else null
    if null is None:
        return lambda x, condition: (x, {})
    if callable(null):
        return null
    values = null if isinstance(null, Mapping) else {"condition": null}

    def call(x: State, condition: dict[str, Any]) -> tuple[State, dict[str, Any]]:
        if absent := sorted(set(values) - set(condition)):
            given = f"the conditions given are {sorted(condition)}" if condition else "no condition is given"
            raise GenmatchError(f"`null` stands in for the condition {absent[0]!r}, and {given}; pass `condition={{{absent[0]!r}: ...}}`.")
        replaced = {name: like(value, condition[name]) for name, value in values.items() if value is not None}
        return x, {**{name: value for name, value in condition.items() if name not in values}, **replaced}

    return call


def like(value: Any, given: Any) -> Any:
    """A value in the shape, the precision and the place of a condition.

    Args:
        value: a number or a tensor.
        given: the condition whose place it takes.
    """
    return torch.as_tensor(value).to(given).expand_as(given) if isinstance(given, Tensor) else value


def check_scale(scale: Any) -> float:
    """Returns a weight of guidance, or raises `GenmatchError` unless it is a finite number of at least 0."""
    return number_in("[0, inf)", scale, "scale", "1 is the condition, 0 no condition")


def check_interval(interval: Any) -> tuple[float, float]:
    """Returns times [low, high), or raises `GenmatchError` unless 0 <= low < high <= 1."""
    try:
        low, high = (float(end) for end in interval)
    except (TypeError, ValueError):
        raise GenmatchError(f"`interval` must be two times (low, high), got {interval!r}.") from None
    if not 0 <= low < high <= 1:
        raise GenmatchError(f"`interval` must be two times with 0 <= low < high <= 1 (0 is noise, 1 is data), got {interval!r}.")
    return low, high
