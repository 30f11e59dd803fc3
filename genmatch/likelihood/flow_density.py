r"""The density of a flow, by the change of variables along its trajectories:

    log p(x1) = log p_0(X_0) - int div u_t(X_t) dt    along the trajectory that ends in x1,    div u = tr(P Du P),

with P the projection on the directions that the space has at X_t: all of R^d, or those tangent to a manifold. The trace is a sum over
the coordinate directions, or the mean of e . Du e over random signs e (Hutchinson's estimator).

Sources: "Score-Based Generative Modeling through SDEs" (Song et al., 2021), https://arxiv.org/abs/2011.13456, appendix D.2; on
manifolds "Riemannian Continuous Normalizing Flows" (Mathieu & Nickel, 2020), https://arxiv.org/abs/2006.10605, proposition 2.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, positive_integer
from genmatch.likelihood.base import Likelihood, checked_end, prepared
from genmatch.models import Condition, Model, Predictor, evaluating
from genmatch.processes.base import MarkovProcess
from genmatch.solvers.ode import tolerances, velocity_at


def log_likelihood(
    process: MarkovProcess,
    model: Model,
    x1: Any,
    *,
    probes: int | None = None,
    condition: Condition | Tensor | None = None,
    t_end: float = 1 - 1e-5,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    seed: int | None = None,
    rng: torch.Generator | None = None,
) -> Likelihood:
    """Computes log p(x1) of a flow by following its trajectories back to the noise.

    The density is that at `t_end`, shortly before the data, where some velocities are still finite. All samples share the adaptive
    steps of torchdiffeq's dopri5.

    A network that predicts the data and errs by e there has moved the density at `t_end` by e / (1 - t_end) standard deviations,
    which is paid squared: predict the velocity, or take an earlier `t_end`, such as 0.99, and say so.

    Args:
        process: a flow, on R^d or on a manifold, whose generator is a drift and nothing else. On a manifold the density refers to the
            measure of `space.log_volume`.
        model: the network, or `gm.oracle(process, data)`; it must be differentiable.
        x1: data points, (B, *shape).
        probes: random directions a sample that estimate the divergence (Rademacher, fixed along a trajectory); at least 2. By default
            the divergence is exact, which costs a gradient a coordinate.
        condition: what the model is conditioned on, a tensor or a dictionary of tensors with one entry a data point.
        t_end: where the trajectories start, below 1.
        rtol: relative error that a step may make.
        atol: absolute error that a step may make.
        seed: makes the probes repeatable; fresh randomness if None.
        rng: source of randomness, instead of `seed`.

    Returns:
        `log_prob` of each data point, in nats, (B,), with the standard error of the probes.

    Raises:
        GenmatchError: if the process has noise or jumps, or an argument does not fit.

    Example:
        >>> import genmatch as gm
        >>> process = gm.Flow(gm.paths.Gaussian((1,)), prediction="data")
        >>> found = gm.log_likelihood(process, lambda x, t: 0 * x, torch.zeros(1, 1), t_end=0.5)   # X_0.5 is N(0, 1/4)
        >>> round(found.log_prob.item(), 4) == round(math.log(2 / math.sqrt(2 * math.pi)), 4)
        True
    """
    _check_flow(process)
    if probes is not None and positive_integer(probes, "probes") < 2:
        raise GenmatchError("`probes` must be at least 2, got 1; a standard error needs more than one. Leave it out for the exact divergence.")
    x1, conditions, rng = prepared(process, model, x1, condition, seed, rng)
    rtol, atol = tolerances(rtol, atol)
    end = checked_end(process, t_end)
    if end == 1:
        raise GenmatchError("`t_end` must be below 1, where a velocity may be infinite; pass e.g. 1 - 1e-5.")
    predict = Predictor(process, model, conditions)
    count = process.space.size if probes is None else probes
    directions = _basis(x1) if probes is None else _rademacher(x1, count, rng)
    with torch.no_grad(), evaluating(model):
        x0, traces = _back(process, predict, x1, directions, end, rtol, atol)
        start = process.path.source_log_prob(x0)
    traces = traces.double()
    trace = traces.sum(0) if probes is None else traces.mean(0)
    error = torch.zeros_like(trace) if probes is None else traces.std(0) / math.sqrt(count)
    return Likelihood(-(start - trace), error, process.data_space.size, False, True, repr(process))


def _back(process: MarkovProcess, predict: Predictor, x1: Tensor, directions: Tensor, end: float, rtol: float, atol: float) -> tuple[Tensor, Tensor]:
    """X at t_min on the trajectories that end in `x1`, and the integral of e . J e for each direction e, (directions, B)."""
    from torchdiffeq import odeint

    space = process.space

    def slope(time: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        t = time.to(torch.float64).expand(len(x1))
        with torch.enable_grad():
            x = space.settle(state[0].detach()).requires_grad_()
            u = velocity_at(process, predict, x, t)
            parts = [_quadratic_form(u, x, space.project(x.detach(), e)) for e in directions]
        return u.detach(), torch.stack(parts)

    times = torch.tensor([end, process.t_min], dtype=torch.float64, device=x1.device)
    start = (x1, x1.new_zeros(len(directions), len(x1)))
    # Without `step_t` torchdiffeq steps past the end and interpolates back; the field may not be defined there.
    try:
        states, traces = odeint(slope, start, times, method="dopri5", rtol=rtol, atol=atol, options={"step_t": times[1:], "dtype": times.dtype})
    except AssertionError as error:
        raise GenmatchError(
            f"the trajectories back from the data cannot be followed ({str(error)[:80]}); a finite data set, as an oracle has, has no density: "
            "lower `t_end`, use float64, or check the network for infinite outputs."
        ) from error
    return space.settle(states[-1]), -traces[-1]


def _quadratic_form(u: Tensor, x: Tensor, e: Tensor) -> Tensor:
    """e . (du/dx) e of each sample, (B,)."""
    if not u.requires_grad:
        return torch.zeros_like(x).flatten(1).sum(-1)
    (pulled,) = torch.autograd.grad(u, x, e, retain_graph=True, allow_unused=True)
    return ((torch.zeros_like(x) if pulled is None else pulled) * e).flatten(1).sum(-1).detach()


def _basis(x: Tensor) -> Tensor:
    """The coordinate directions, (size, B, *shape)."""
    size = x[0].numel()
    return torch.eye(size, dtype=x.dtype, device=x.device).reshape(size, 1, *x.shape[1:]).expand(size, *x.shape)


def _rademacher(x: Tensor, probes: int, rng: torch.Generator) -> Tensor:
    """Random signs, (probes, B, *shape)."""
    return 2 * torch.randint(2, (probes, *x.shape), device=x.device, generator=rng).to(x.dtype) - 1


def _check_flow(process: MarkovProcess) -> None:
    reasons = {
        "product": "is a product of processes; `gm.elbo` bounds `process.bounded()`, in which diffusions with the same networks take the place of flows",
        "brownian": "has noise, so that no trajectory is the only one to a data point; use `gm.elbo`, or a Flow on the same path with the same network",
        "jump": "jumps, so that no trajectory is the only one to a data point"
        + ("; use `gm.elbo`" if process.has_noise else ", and drifts without noise, so that no bound is finite either"),
    }
    for kind, reason in reasons.items():
        if kind in process.kinds:
            raise GenmatchError(f"{process} {reason}; the log-likelihood is that of a flow.")
