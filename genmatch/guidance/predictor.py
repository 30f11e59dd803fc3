r"""Guidance by a classifier: Bayes' rule for the posterior of the data.

    score of p_t(x | c) = score of p_t(x) + grad log p_t(c | x)        on a Gaussian path
    p(x1_j = v | x, c) proportional to pi^j(v) p(c | x1_j = v, x)      for tokens, of any source and with any rates

Both are exact with the true $p(c | \cdot)$ and leave the process as it is: it follows another posterior. A weight w takes the power
$p(c | \cdot)^w$. For tokens the classifier must know what a token of the *data* says of the condition: $p_t(c | y)$ at a neighbour
$y$ of the state is something else, and belongs to `classifier_rates`.

Sources: "Diffusion Models Beat GANs on Image Synthesis" (Dhariwal & Nichol, 2021), https://arxiv.org/abs/2105.05233, section 4;
"Unlocking Guidance for Discrete State-Space Diffusion and Flow Models" (Nisonoff et al., 2025), https://arxiv.org/abs/2406.01572.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.guidance.free import check_interval, check_scale
from genmatch.models import Model
from genmatch.processes.base import MarkovProcess
from genmatch.reprs import arguments

LogProb = Callable[..., Tensor]
"""A classifier, log_prob(x, t, **condition): log p_t(c given x), (B,), or a table of them, (B, *shape, V)."""

START = 1e-3
"""Up to here the push of the classifier is that of this time: at t = 0 a score says nothing of the data."""


class Classified(torch.nn.Module):
    """A model whose score is pushed by a classifier. Built by `classifier`."""

    extra_repr = arguments

    def __init__(self, process: MarkovProcess, model: Model, log_prob: LogProb, scale: float, interval: tuple[float, float]) -> None:
        super().__init__()
        self.process, self.model, self.log_prob, self.scale, self.interval = process, model, log_prob, scale, interval

    def forward(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """The output for the condition at states `x`, (B, *shape), and times `t`, (B,)."""
        output, weight = self.model(x, t), torch.where((t >= self.interval[0]) & (t < self.interval[1]), self.scale, 0.0)
        if not bool(weight.any()):
            return output
        late = t.clamp(min=START)
        push = weight.reshape(-1, *[1] * (x.dim() - 1)) * self._gradient(x, late, condition)
        return self.process.steered(output, push.to(output.dtype), late)  # type: ignore[attr-defined]

    def _gradient(self, x: Tensor, t: Tensor, condition: dict[str, Any]) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            value = self.log_prob(x, t, **condition)
            if not isinstance(value, Tensor) or value.shape != t.shape or not value.requires_grad:
                found = f"shape {tuple(value.shape)}, differentiable: {value.requires_grad}" if isinstance(value, Tensor) else type(value).__name__
                raise GenmatchError(f"`log_prob` must return log p(c given x) of shape (B,) = {tuple(t.shape)}, differentiable in x, got {found}.")
            return torch.autograd.grad(value.sum(), x)[0]


def classifier(process: MarkovProcess, model: Model, log_prob: LogProb, scale: float = 1.0, *, interval: tuple[float, float] = (0.0, 1.0)) -> Classified:
    """A model without a condition, guided by a classifier of noisy states; exact for the true one and scale 1.

    Args:
        process: a `Flow` or a `Diffusion` on a Gaussian path, which says how a change of the score changes its prediction.
        model: what is guided; it is called as model(x, t).
        log_prob: log_prob(x, t, **condition) returns log p_t(c given x) in nats, (B,), differentiable in the states `x`, (B, *shape);
            it gets the condition that is passed to `sample`. Times are in the precision in which the model gets them, at least 1e-3.
        scale: the weight w, at least 0.
        interval: times [low, high) at which guidance acts.

    Raises:
        GenmatchError: if the process has no score, or an argument is out of range.

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
    if not process.supports("steered"):
        raise GenmatchError(
            f"`classifier` adds the gradient of log p(c given x) to a score, and {process} has none; use `classifier_posterior` for tokens, or `classifier_free`."
        )
    _check_callable(model=model, log_prob=log_prob)
    return Classified(process, model, log_prob, check_scale(scale), check_interval(interval))


class ClassifiedPosterior(torch.nn.Module):
    """A model of tokens whose posterior is that given a condition. Built by `classifier_posterior`."""

    extra_repr = arguments

    def __init__(self, model: Model, log_prob: LogProb, scale: float) -> None:
        super().__init__()
        self.model, self.log_prob, self.scale = model, log_prob, scale

    def forward(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """Logits for the condition at states `x`, (B, *shape), and times `t`, (B,): (B, *shape, V)."""
        logits = self.model(x, t)
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
