r"""Guidance by a classifier: Bayes' rule for the posterior of the data.

With $p_t(c | x)$, of a noisy state, the law of the states $p_t(x | c) \propto p_t(x)\, p_t(c | x)$ is known, and from it the posterior:

    score of p_t(x | c) = score of p_t(x) + grad log p_t(c | x)                    on a Gaussian path
    p_t(y | c) / p_t(x | c) = p_t(y) / p_t(x) * p_t(c | y) / p_t(c | x)            for tokens, y with one of them changed

With $p(c | x_1^j = v, x)$, of what a token of the *data* says, so is that of tokens on any path: proportional to $\pi^j(v)\, p(c | x_1^j = v, x)$.
All are exact with the true $p(c | \cdot)$ and leave the process as it is: it follows another posterior. In a product each part does so with
the others held, since given the data they are independent. A weight w takes the power $p(c | \cdot)^w$.

Sources: "Diffusion Models Beat GANs on Image Synthesis" (Dhariwal & Nichol, 2021), https://arxiv.org/abs/2105.05233, section 4;
"Unlocking Guidance for Discrete State-Space Diffusion and Flow Models" (Nisonoff et al., 2025), https://arxiv.org/abs/2406.01572;
"Simple Guidance Mechanisms for Discrete Diffusion Models" (Schiff et al., 2025), https://arxiv.org/abs/2412.10193.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, positive_integer
from genmatch.guidance.free import check_interval, check_scale
from genmatch.models import Model
from genmatch.processes.base import LogWeight, MarkovProcess
from genmatch.reprs import arguments
from genmatch.tensors import State, expand, leaves, tree_map

LogProb = Callable[..., Tensor]
"""A classifier, log_prob(x, t, **condition): log p_t(c given x), (B,), or a table of them, (B, *shape, V)."""

START = 1e-3
"""Up to here the classifier is asked at this time: at t = 0 a law of states says nothing of the data."""


class Classified(torch.nn.Module):
    """A model of the states that a classifier takes for those of a condition. Built by `classifier`, which explains `size` and the rest."""

    extra_repr = arguments

    def __init__(self, process: MarkovProcess, model: Model, log_prob: LogProb, scale: float, interval: tuple[float, float], size: int) -> None:
        super().__init__()
        self.process, self.model, self.log_prob = process, model, log_prob
        self.scale, self.interval, self.size = scale, interval, size

    def forward(self, x: State, t: Tensor, **condition: Any) -> State:
        """The output for the condition at states `x` and times `t`, (B,)."""
        output, inside = self.model(x, t), (t >= self.interval[0]) & (t < self.interval[1])
        if self.scale == 0 or not bool(inside.any()):
            return output
        late = t.clamp(min=START)
        guided = self.process.tilted(output, x, late.double(), self._log_weight(late, condition))
        return tree_map(lambda new, old: torch.where(expand(inside, new).bool(), new, old), guided, output)

    def _log_weight(self, t: Tensor, condition: dict[str, Any]) -> LogWeight:
        """scale * log p_t(c | x) of any states, for the times and the conditions of their rows."""

        def asked(x: State, rows: Tensor) -> Tensor:
            given = {name: value[rows] if isinstance(value, Tensor) and value.dim() else value for name, value in condition.items()}
            value = check_log_prob(self.log_prob(x, t[rows], **given), len(rows))
            if any(leaf.requires_grad for leaf in leaves(x)) and not value.requires_grad:
                raise GenmatchError("`log_prob` must return log p(c given x) that is differentiable in the states that are vectors, got a constant.")
            return value

        def log_weight(x: State, rows: Tensor) -> Tensor:
            some = torch.arange(len(rows), device=rows.device).split(self.size)
            return self.scale * torch.cat([asked(tree_map(lambda v, i=i: v[i], x), rows[i]) for i in some])

        return log_weight


def classifier(
    process: MarkovProcess, model: Model, log_prob: LogProb, scale: float = 1.0, *, interval: tuple[float, float] = (0.0, 1.0), size: int = 4096
) -> Classified:
    """A model without a condition, guided by a classifier of noisy states; exact for the true one and scale 1.

    For vectors a call of the model takes one gradient of the classifier. For tokens it asks the classifier for every state with one token
    changed, up to B L V of them; for masked tokens only those that masks may become. In a product it does so for each part, with the
    others held.

    Args:
        process: what says how its output changes with the law of its states: a `Flow` or a `Diffusion` on a Gaussian path, a `CTMC` on a
            mixture path, a `JumpProcess` on a `RealMixture` path, and products and superpositions of these.
        model: what is guided; it is called as model(x, t).
        log_prob: log_prob(x, t, **condition) returns log p_t(c given x) in nats, (B,), of states `x` of the process, a dictionary for a
            product, and differentiable in those that are vectors; it gets the condition that is passed to `sample`. Times are in the
            precision in which the model gets them, at least 1e-3, and the same for all parts. States with -inf, which the condition
            excludes, are not guided: sum in logarithms, so that -inf is no rounding error.
        scale: the weight w, at least 0.
        interval: times [low, high) at which guidance acts.
        size: states a call of the classifier.

    Raises:
        GenmatchError: if the process, or a part of it, has no such output, with the reason; or if an argument is out of range.

    Example: of the two points -1 and 1, the classifier asks for the second.
        >>> import genmatch as gm
        >>> process = gm.Flow(gm.paths.Gaussian((1,)), prediction="data")
        >>> model = gm.oracle(process, torch.tensor([[-1.0], [1.0]]))
        >>> wanted = lambda x, t: torch.nn.functional.logsigmoid(2 * x[:, 0] * t / (1 - t) ** 2)
        >>> guided = classifier(process, model, wanted)
        >>> x, t = torch.tensor([[-0.3], [0.1]]), torch.full((2,), 0.6)
        >>> model(x, t).flatten().round(decimals=2), guided(x, t).flatten().round(decimals=4)
        (tensor([-0.8100,  0.3600]), tensor([1., 1.]))
    """
    if process.tilt_misfit:
        raise GenmatchError(
            f"`classifier` must know what the output of {process} would be for the law p_t(x given c), and cannot: {process.tilt_misfit}. "
            "Use `classifier_free`; for tokens or levels alone there is `classifier_posterior`, for tokens `classifier_rates`."
        )
    _check_callable(model=model, log_prob=log_prob)
    return Classified(process, model, log_prob, check_scale(scale), check_interval(interval), positive_integer(size, "size"))


def check_log_prob(value: Any, n: int) -> Tensor:
    """Returns `value`, what a classifier said of `n` states, or raises `GenmatchError` unless it is one number for each, -inf at least."""
    if not isinstance(value, Tensor) or value.shape != (n,):
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise GenmatchError(f"`log_prob` must return log p(c given x) of shape (B,) = ({n},), got {found}.")
    if bool(value.isnan().any()):
        raise GenmatchError(
            f"`log_prob` must return log p(c given x), got NaN for {int(value.isnan().sum())} of {n} states; "
            "of a state that no data lead to return 0, which guides nowhere, and of one that the condition excludes -inf."
        )
    return value


class ClassifiedPosterior(torch.nn.Module):
    """A model of tokens whose posterior is that given a condition. Built by `classifier_posterior`."""

    extra_repr = arguments

    def __init__(self, model: Model, log_prob: LogProb, scale: float) -> None:
        super().__init__()
        self.model, self.log_prob, self.scale = model, log_prob, scale

    def forward(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """Logits for the condition at states `x`, (B, *shape), and times `t`, (B,): (B, *shape, V)."""
        logits = self.model(x, t)
        if isinstance(logits, dict):
            raise GenmatchError(f"`classifier_posterior` is for tokens alone, got outputs for {sorted(logits)}; use `classifier`.")
        if self.scale == 0:
            return logits
        table = self.log_prob(x, t, **condition)
        if not isinstance(table, Tensor) or table.shape != logits.shape:
            found = tuple(table.shape) if isinstance(table, Tensor) else type(table).__name__
            raise GenmatchError(f"`log_prob` must return log p(c given x1_j = v and x) for each token, (B, *shape, V) = {tuple(logits.shape)}, got {found}.")
        return logits + self.scale * table


def classifier_posterior(model: Model, log_prob: LogProb, scale: float = 1.0) -> ClassifiedPosterior:
    """A model of tokens without a condition, guided by what each token of the data says of it; exact for the truth and scale 1.

    This holds for every source and for mixture and reversal rates alike, and for predictions of the posterior or the cavity.

    Args:
        model: returns logits, (B, *shape, V); it is called as model(x, t).
        log_prob: log_prob(x, t, **condition) returns log p(c given x1_j = v and X_t = x) in nats for each position j and token v,
            (B, *shape, V); it gets the condition that is passed to `sample`.
        scale: the weight w, at least 0.

    Raises:
        GenmatchError: if an argument is out of range.

    Example:
        >>> model = classifier_posterior(lambda x, t: torch.zeros(1, 1, 2), lambda x, t: torch.tensor([[[0.9, 0.3]]]).log())
        >>> model(torch.zeros(1, 1), torch.zeros(1)).softmax(-1)
        tensor([[[0.7500, 0.2500]]])
    """
    _check_callable(model=model, log_prob=log_prob)
    return ClassifiedPosterior(model, log_prob, check_scale(scale))


def _check_callable(**given: Any) -> None:
    for name, value in given.items():
        if not callable(value):
            raise GenmatchError(f"`{name}` must be callable as {name}(x, t), got {type(value).__name__}.")
