r"""Guidance of the rates of a jump process: a process that wraps another.

    classifier         Q^c(y | x) = Q(y | x) [p_t(c | y) / p_t(c | x)]^w        Doob's transform
    classifier-free    Q(y | x) = Q_c(y | x)^w Q_u(y | x)^{1-w}                 y other than x

The first carries $p_t(\cdot | c)$ at w = 1 if and only if $p_t(c | x)$ is harmonic, $\partial_t h + L_t h = 0$. It is for the time reversal of a
noising chain, since $c$ depends on the data alone: for reversal rates, and so for the mask. Mixture rates of any other source
carry $p_t$, but by a process of which $p_t(c | x)$ is no conditional probability, and Doob's transform misses the law: it is refused.
The second differs from arithmetic on logits in the exit rate of a token, which it does not keep.

Source: "Unlocking Guidance for Discrete State-Space Diffusion and Flow Models" (Nisonoff et al., 2025),
https://arxiv.org/abs/2406.01572.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genmatch.calculus import neighbours
from genmatch.errors import GenmatchError
from genmatch.generators import Categorical, Generator, Jump, Sum
from genmatch.guidance.free import Without, check_scale, combine, without
from genmatch.guidance.predictor import check_log_prob
from genmatch.models import Model
from genmatch.processes.base import MarkovProcess
from genmatch.reprs import arguments
from genmatch.tensors import expand

StateLogProb = Callable[[Tensor, Tensor], Tensor]
"""log_prob(x, t): log p_t(c given x) of the condition that is wanted, (B,)."""


class GuidedRates(MarkovProcess):
    """A process with the path of another and rates made from its own. Subclasses define `generator` and `finish`."""

    kinds = frozenset({"jump"})

    def __init__(self, process: MarkovProcess, scale: float) -> None:
        self.base, self.scale = process, scale
        self.path, self.t_min = process.path, process.t_min

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base}, scale={self.scale:g})"

    def target(self, x: Tensor, t: Tensor, x1: Tensor, *, x0: Tensor | None = None) -> Tensor:
        """Raises `GenmatchError`: guided rates are for sampling, and the network is trained on the process that they guide."""
        raise GenmatchError(f"{self} is for sampling: its rates are not affine in what a network predicts; train the network on {self.base}.")

    @abstractmethod
    def finish(self, output: Any, x: Tensor, t: Tensor, *, rng: torch.Generator | None = None) -> Tensor: ...

    def _jump(self, output: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The intensity of the base process, (B, *shape), and the law of its jumps to other states, log, (B, *shape, S)."""
        jump = Sum(*self.base.generator(output, x, t).terms).jump
        if jump is None:
            raise GenmatchError(f"{type(self.base).__name__} declares jumps, but its generator has none; correct its `kinds`.")
        values, weights = jump.destination.atoms()
        # Where nothing jumps there may be no law.
        weights = weights.expand(*x.shape, weights.shape[-1]).nan_to_num().double()
        law = weights.new_zeros(*x.shape, self.path.space.num_states)  # type: ignore[attr-defined]
        law = law.scatter_add(-1, values.expand_as(weights), weights).scatter(-1, x.unsqueeze(-1), 0.0)
        return jump.intensity.double(), law.log()


def _jumps(intensity: Tensor, log_rates: Tensor) -> Jump:
    """The jump with rates intensity * exp(log_rates), where the intensity may be infinite."""
    total = log_rates.logsumexp(-1).exp()
    moves = (total > 0) & (intensity > 0)
    return Jump(torch.where(moves, intensity * total, 0), Categorical(torch.where(moves.unsqueeze(-1), log_rates, 0)))


class ClassifierRates(GuidedRates):
    """Doob's transform of a jump process of tokens. Built by `classifier_rates`.

    Args:
        size: states that the classifier is asked of at a time.
    """

    def __init__(self, process: MarkovProcess, log_prob: StateLogProb, scale: float, size: int) -> None:
        super().__init__(process, scale)
        self.log_prob, self.size = log_prob, size

    @property
    def output_shape(self) -> Any:
        return self.base.output_shape

    def generator(self, output: Tensor, x: Tensor, t: Tensor) -> Generator:
        intensity, law = self._jump(output, x, t)
        return _jumps(intensity, law + self.scale * self._gain(x, t, ~law.isneginf() & (intensity > 0).unsqueeze(-1)))

    def finish(self, output: Tensor, x: Tensor, t: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """The base process's, with its posterior times p_t(c given x with the token in its place): exact for the mask, else at late times."""
        probs = self.base.mean_at(output, x, t).double()
        gain = self.scale * self._gain(x, t, probs > 0)
        tilted = torch.where(probs > 0, probs.log() + gain, -torch.inf).softmax(-1)
        return self.base.finish(self.base.natural_at(tilted, x, t), x, t, rng=rng)

    def _gain(self, x: Tensor, t: Tensor, wanted: Tensor) -> Tensor:
        """log p_t(c | y) / p_t(c | x) for the states y with one token changed, where `wanted`, (B, *shape, K); else 0."""
        here = check_log_prob(self.log_prob(x, t), len(x)).double()
        states = torch.arange(wanted.shape[-1], device=x.device)
        there = neighbours(lambda x, rows: check_log_prob(self.log_prob(x, t[rows]), len(x)), x, states, wanted, self.size)
        return torch.where(wanted, there - expand(here, there), 0)


class ClassifierFreeRates(GuidedRates):
    """The geometric mean of rates with and without a condition. Built by `classifier_free_rates`."""

    @property
    def output_shape(self) -> Any:
        return {"given": self.base.output_shape, "free": self.base.output_shape}

    def generator(self, output: Any, x: Tensor, t: Tensor) -> Generator:
        (c, given), (u, free) = (self._jump(output[name], x, t) for name in ("given", "free"))
        # Where both clocks are infinite, at the start of reversal rates, their ratio tends to 1.
        ratio = torch.where(c.isinf() | (c == u), 1, u / c)
        return _jumps(c * ratio ** (1 - self.scale), combine(given, free, self.scale))

    def finish(self, output: Any, x: Tensor, t: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """The base process's, with the two outputs combined as they are."""
        return self.base.finish(combine(output["given"], output["free"], self.scale), x, t, rng=rng)


class Pair(torch.nn.Module):
    """A model that is asked with and without its condition: a dictionary of both outputs."""

    extra_repr = arguments

    def __init__(self, model: Model, without: Without) -> None:
        super().__init__()
        self.model, self.without = model, without

    def forward(self, x: Tensor, t: Tensor, **condition: Any) -> dict[str, Tensor]:
        """What the model says at states `x` and times `t`, (B,), as `given` and as `free`."""
        hidden, unconditional = self.without(x, condition)
        return {"given": self.model(x, t, **condition), "free": self.model(hidden, t, **unconditional)}


def classifier_rates(process: MarkovProcess, log_prob: StateLogProb, scale: float = 1.0, *, size: int = 4096) -> ClassifierRates:
    """A process of tokens guided by a classifier of noisy states, sampled with the model of the base process.

    A step asks the classifier for every state that one jump leads to, up to B L S of them. Use the solver "euler" or "tau-leaping".

    Args:
        process: a jump process of tokens whose rates are a time reversal: a CTMC with the mask as source, or with
            rates="reversal".
        log_prob: log_prob(x, t) returns log p_t(c given x) in nats of the condition that is wanted, (B,).
        scale: the power w of the ratio, at least 0; exact at 1.
        size: states a call of the classifier.

    Raises:
        GenmatchError: if the rates are not known to be a time reversal, for which Doob's transform is wrong.

    Example:
        >>> import genmatch as gm
        >>> process = gm.CTMC(gm.paths.Mixture((2,), vocab_size=3))
        >>> model = gm.oracle(process, torch.tensor([[0, 1], [2, 2]]))
        >>> guided = classifier_rates(process, lambda x, t: torch.where((x == 2).any(-1), 0.0, torch.where((x < 2).any(-1), -torch.inf, -0.7)))
        >>> gm.sample(guided, model, 2, steps=4, solver="euler", seed=0)
        tensor([[2, 2],
                [2, 2]])
    """
    _check_jumps(process, "`classifier_rates`")
    if not process.bound_is_tight:
        raise GenmatchError(
            f"Doob's transform needs rates of which p_t(c given x) is a conditional probability, those of a time reversal, and the rates of {process} "
            "are not: they carry the law p_t by another process, and the guided one would miss the law given c. Use rates='reversal', the mask as "
            "source, or `classifier`, which is exact for any source."
        )
    if not callable(log_prob):
        raise GenmatchError(f"`log_prob` must be callable as log_prob(x, t), got {type(log_prob).__name__}.")
    return ClassifierRates(process, log_prob, check_scale(scale), size)


def classifier_free_rates(process: MarkovProcess, model: Model, scale: float = 2.0, null: Any = None) -> tuple[ClassifierFreeRates, Pair]:
    """A process of tokens whose rates are guided, and the model to sample it with; the condition is passed to `sample` as ever.

    Use the solver "euler" or "tau-leaping"; `classifier_free` guides the posterior, keeps the exit rates, and goes with any solver.

    Args:
        process: a jump process of tokens.
        model: a network that knows what to say without a condition.
        scale: the weight w, at least 0: 1 is the condition, 0 no condition.
        null: what the call without a condition gets, as for `classifier_free`.

    Raises:
        GenmatchError: if the process is not one of jumps of tokens alone.

    Example:
        >>> import genmatch as gm
        >>> process = gm.CTMC(gm.paths.Mixture((2,), vocab_size=3))
        >>> guided, pair = classifier_free_rates(process, lambda x, t, label=0.0: torch.eye(3)[x.clamp(max=2)] * label, scale=3.0)
        >>> gm.sample(guided, pair, 1, steps=2, solver="euler", seed=0, condition={"label": torch.ones(1, 1, 1)}).shape
        torch.Size([1, 2])
    """
    _check_jumps(process, "`classifier_free_rates`")
    return ClassifierFreeRates(process, check_scale(scale)), Pair(model, without(model, null))


def _check_jumps(process: MarkovProcess, name: str) -> None:
    if process.kinds != {"jump"} or process.stationary or not hasattr(process.space, "num_states"):
        raise GenmatchError(
            f"{name} changes the rates of tokens that jump to data, and {process} does not move by these alone; use `classifier` or `classifier_free`."
        )
