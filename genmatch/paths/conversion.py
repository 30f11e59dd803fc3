r"""One table that converts what a network predicts on a Gaussian path.

With $x = \alpha x_1 + \sigma \epsilon$ and $v = \dot\alpha x_1 + \dot\sigma \epsilon$, the posterior means of data, noise and
velocity, and the score $s = -\epsilon / \sigma$, determine each other: each is $a\,x + b\,m$ with coefficients that depend
on time only. Let $\Delta = \dot\alpha \sigma - \alpha \dot\sigma$.

Source: "Flow Matching Guide and Code" (Lipman et al., 2024), https://arxiv.org/abs/2412.06264, table 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genmatch.schedules import Schedule
from genmatch.tensors import expand

PREDICTIONS = ("velocity", "data", "noise", "score")

Coefficients = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor | float, Tensor]]

# From, to: (a, b) of a x + b m, as functions of alpha, sigma, their derivatives, and Delta.
_TABLE: dict[tuple[str, str], Coefficients] = {
    ("data", "noise"): lambda al, si, dal, dsi, de: (1 / si, -al / si),
    ("data", "velocity"): lambda al, si, dal, dsi, de: (dsi / si, de / si),
    ("data", "score"): lambda al, si, dal, dsi, de: (-1 / si**2, al / si**2),
    ("noise", "data"): lambda al, si, dal, dsi, de: (1 / al, -si / al),
    ("noise", "velocity"): lambda al, si, dal, dsi, de: (dal / al, -de / al),
    ("noise", "score"): lambda al, si, dal, dsi, de: (0.0, -1 / si),
    ("velocity", "data"): lambda al, si, dal, dsi, de: (-dsi / de, si / de),
    ("velocity", "noise"): lambda al, si, dal, dsi, de: (dal / de, -al / de),
    ("velocity", "score"): lambda al, si, dal, dsi, de: (-dal / (de * si), al / (de * si)),
    ("score", "data"): lambda al, si, dal, dsi, de: (1 / al, si**2 / al),
    ("score", "noise"): lambda al, si, dal, dsi, de: (0.0, -si),
    ("score", "velocity"): lambda al, si, dal, dsi, de: (dal / al, si * de / al),
}


def convert(value: Tensor, x: Tensor, t: Tensor, schedule: Schedule, source: str, to: str) -> Tensor:
    """Converts a prediction at states `x` and times `t`, (B,), from kind `source` to kind `to`."""
    if source == to:
        return value
    a, b = coefficients(schedule, t, source, to)
    return expand(a, x) * x + expand(b, x) * value


def coefficients(schedule: Schedule, t: Tensor, source: str, to: str) -> tuple[Tensor, Tensor]:
    """(a, b) of the conversion a x + b m, float64, (B,)."""
    al, si, dal, dsi = schedule.alpha(t), schedule.sigma(t), schedule.d_alpha(t), schedule.d_sigma(t)
    a, b = _TABLE[source, to](al, si, dal, dsi, dal * si - al * dsi)
    return torch.as_tensor(a, dtype=b.dtype, device=b.device).expand_as(b), b
