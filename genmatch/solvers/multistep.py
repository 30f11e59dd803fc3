r"""A solver that remembers what the network said before: order 2 for one call a step.

On a Gaussian path, with $\lambda = \log(\alpha / \sigma)$ and the data predictions $\hat x_1$ at the present time t and $\hat x_1'$ at the time r before it,
*2M* takes the step of the process towards an extrapolated data point,

    (1 + c) \hat x_1 - c \hat x_1',   c = (lambda_s - lambda_t) / (2 (lambda_t - lambda_r)).

Source: "DPM-Solver++" (Lu et al., 2022), https://arxiv.org/abs/2211.01095, algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.processes.base import MarkovProcess
from genmatch.solvers.base import DRIFT, Predict, Solver
from genmatch.solvers.denoising import denoising_of
from genmatch.tensors import expand


class Multistep(Solver):
    """DPM-Solver++(2M): towards a data prediction extrapolated in log-SNR; order 2, one call a step.

    The first step has nothing to extrapolate from, and the last one, into sigma = 0, lasts infinitely long in log-SNR: both are of first order.

    Example:
        >>> import genmatch as gm
        >>> flow = gm.Flow(gm.paths.Gaussian((1,)))
        >>> model = gm.oracle(flow, torch.tensor([[-1.0], [1.0]]))
        >>> gm.sample(flow, model, 3, solver="2m", steps=8, seed=0).abs()
        tensor([[1.],
                [1.],
                [1.]])
    """

    order = 2
    calls = 1
    kinds = DRIFT
    needs = ("transition", "gain")

    def __init__(self) -> None:
        self._last: _Prediction | None = None

    def start(self) -> Multistep:
        return Multistep()

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        denoising, output = denoising_of(process), predict(x, t)
        end = denoising.path.schedule.log_snr(s)
        if bool(end.isposinf().any()):
            raise GenmatchError("2M cannot step into sigma = 0, where log-SNR is infinite; end the grid before 1, or let `gm.simulate` take the last step.")
        data = denoising.predict(output, x, t, "data")
        y = process.transition(output, x, t, s, rng=rng)
        last, goes_on = self._last, self._last is not None and self._last.leads_to(x, t)
        start = last.end if last is not None and goes_on else denoising.path.schedule.log_snr(t)
        self._last = _Prediction(s, data, start, end)
        if last is None or not goes_on:
            return y
        c = (end - start) / (2 * (start - last.start))
        return y + expand(c * denoising.gain(t, s), x) * (data - last.data)


@dataclass(frozen=True)
class _Prediction:
    """The data predicted at the start of a step to `s`, and the log-SNR at its two ends."""

    s: Tensor
    data: Tensor
    start: Tensor
    end: Tensor

    def leads_to(self, x: Tensor, t: Tensor) -> bool:
        """Whether states `x` at `t` are where that step ended."""
        return self.data.shape == x.shape and bool((self.s == t).all())
