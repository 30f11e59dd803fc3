r"""Likelihoods: an upper bound of -log p(x1) for every process with noise, and log p(x1) itself for flows.

Two processes on one path that start from the same noise differ, at time t, at the rate `kl_rate` of their path measures; and data
that are a function of a path are no further apart than the paths. So for the process that leads to $x_1$ and the one that a network
leads

    -log p(x1)  <=  KL(p_0(. | x1) || source)  +  int E_{x ~ p_t(. | x1)} kl_rate(output, x, t, x1) dt  +  E[-log p(x1 | X_end)],

for every process: the mask and uniform bounds of discrete diffusion, and the variational bound of Gaussian diffusion. With the exact
network it is the entropy of the data if the process is a time reversal, and more otherwise: bounds of different families, or of
different rates, are not comparable, so that each carries its name. A flow has a density,

    log p(x1) = log p_0(X_0) - int div u_t(X_t) dt    along the trajectory that ends in x1,    div u = tr(P Du P),

with P the projection on the directions that the space has at X_t: all of R^d, or those tangent to a manifold.

Sources: "Generator Matching" (Holderrieth et al., 2025), https://arxiv.org/abs/2410.20587; "Score-based Generative Modeling through
SDEs" (Song et al., 2021), https://arxiv.org/abs/2011.13456, appendix D.2; on manifolds "Riemannian Continuous Normalizing Flows"
(Mathieu & Nickel, 2020), https://arxiv.org/abs/2006.10605, proposition 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, positive_integer
from genmatch.models import Condition, Model, Predictor, check_model, conditions_for, device_of, evaluating
from genmatch.processes.base import MarkovProcess
from genmatch.reprs import described
from genmatch.sampling import make_rng
from genmatch.solvers.ode import velocity_at
from genmatch.tensors import State, batch_size, tree_map

_EDGE = 1e-6
"""How near to the ends of [0, 1] the variable of the integral goes: there a time would round to the end."""


@dataclass(frozen=True)
class Likelihood:
    """What is known of -log p of some data points.

    Attributes:
        nats: -log p(x1), or an estimate of an upper bound of it, nats a sample, float64, (B,).
        standard_error: of each, from the draws that estimate it; zero where there are none, (B,).
        size: coordinates a sample, such as the characters of a text.
        bound: whether `nats` are an upper bound.
        tight: whether the bound of the exact network would be the entropy of the data.
        process: whose likelihood it is: family, path and rates.

    Example: a thousand samples of two bits.
        >>> flat = Likelihood(torch.full((1000,), 2 * math.log(2)), torch.zeros(1000), size=4, bound=False, tight=True, process="flat")
        >>> round(flat.bits_per_coordinate, 4), round(flat.perplexity, 4)
        (0.5, 1.4142)
        >>> print(flat)
        1.3863 ± 0.0000 nats a sample, 0.5000 bits a coordinate: exact, up to the solver's error, of flat
    """

    nats: Tensor
    standard_error: Tensor
    size: int
    bound: bool
    tight: bool
    process: str

    __repr__ = described

    @property
    def log_prob(self) -> Tensor:
        """log p(x1), or a lower bound of it, nats a sample, (B,)."""
        return -self.nats

    @property
    def mean(self) -> float:
        """Mean over the samples, nats a sample."""
        return float(self.nats.mean())

    @property
    def mean_error(self) -> float:
        """Standard error of `mean` for these samples: that of the draws, not of the choice of the samples."""
        return float(self.standard_error.square().sum().sqrt() / len(self.nats))

    @property
    def bits_per_coordinate(self) -> float:
        """Mean bits a coordinate: a character of a text, a dimension of an image."""
        return self.mean / self.size / math.log(2)

    @property
    def bits_error(self) -> float:
        """Standard error of `bits_per_coordinate`."""
        return self.mean_error / self.size / math.log(2)

    def bits_per_level(self, scale: float) -> float:
        """Bits a coordinate of integer levels y that were modelled as x = (y + uniform noise - c) / scale: an upper bound.

        Args:
            scale: levels a unit of x, such as 127.5 for levels 0 to 255 that became [-1, 1].
        """
        return self.bits_per_coordinate + math.log2(scale)

    @property
    def perplexity(self) -> float:
        """exp(nats a coordinate); with an upper bound, an upper bound too. Infinite where it is no number of double precision."""
        return float(torch.tensor(self.mean / self.size, dtype=torch.float64).exp())

    @property
    def kind(self) -> str:
        """What the number is, in words: "exact", or which kind of upper bound."""
        if not self.bound:
            return "exact, up to the solver's error,"
        return "tight upper bound" if self.tight else "upper bound that is loose even for the exact network"

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.mean_error:.4f} nats a sample, {self.bits_per_coordinate:.4f} bits a coordinate: {self.kind} of {self.process}"


def elbo(
    process: MarkovProcess,
    model: Model,
    x1: Any,
    *,
    draws: int = 32,
    condition: Condition | Tensor | None = None,
    t_end: float | None = None,
    seed: int | None = None,
    rng: torch.Generator | None = None,
    batch_size: int = 1024,
) -> Likelihood:
    """Estimates an upper bound of -log p(x1), the negative evidence lower bound, for a process with noise.

    Args:
        process: whose likelihood it is. A diffusion's is that of its network with memoryless noise.
        model: the network, or `gm.oracle(process, data)`.
        x1: data points, (B, *shape), or a dictionary for products.
        draws: states on the way to each data point, at least 2. They cover time evenly.
        condition: what the model is conditioned on, a tensor or a dictionary of tensors with one entry a data point.
        t_end: where the last step into the data is taken; the path's own time by default. A network that is not certain of the data at
            the end has no finite bound up to 1 unless its source is the mask.
        seed: makes the estimate repeatable; fresh randomness if None.
        rng: source of randomness, instead of `seed`.
        batch_size: states a network call.

    Returns:
        The bound of each data point, in nats, with its standard error and what it is a bound of.

    Raises:
        GenmatchError: if the process has no noise, its bound is infinite, the network is told what it is asked for, or an argument does not fit.

    Example:
        >>> import genmatch as gm
        >>> process = gm.CTMC(gm.paths.Mixture((2,), vocab_size=3))
        >>> bound = gm.elbo(process, gm.oracle(process, torch.tensor([[0, 1], [2, 2]])), torch.tensor([[0, 1]]), draws=1000, seed=0)
        >>> bool((bound.nats - math.log(2)).abs() < 4 * bound.standard_error), bound.tight
        (True, True)
    """
    _check_noise(process)
    if positive_integer(draws, "draws") < 2:
        raise GenmatchError("`draws` must be at least 2, got 1; a standard error needs more than one draw.")
    size = positive_integer(batch_size, "batch_size")
    x1, conditions, rng = _prepared(process, model, x1, condition, seed, rng)
    start, end = process.t_min, _end(process, t_end)
    with torch.no_grad(), evaluating(model):
        process.check_sight(Predictor(process, model, tree_map(lambda v: v[:1], conditions)), tree_map(lambda v: v[:1], x1))
    first = process.path.source_nats(x1, start)
    if bool(first.isinf().any()):
        raise GenmatchError(
            f"the bound of {process.bound} is infinite: its network says nothing before t = {start:g}, where the path has states that the "
            "source never gives; convert its output with `process.predict` and pass a process with prediction='posterior'."
        )
    walk = _Walk(process, model, x1, conditions, size, rng)
    with torch.no_grad(), evaluating(model):
        costs, last = walk.costs(start, end, draws), walk.last(end, max(2, draws // 4))
    if bool(costs.isnan().any()) or bool(last.isnan().any()):
        raise GenmatchError("the bound is not a number; the model returns NaN, or the process has no rate where its path goes.")
    error = (_stratified_variance(costs) + last.var(-1) / last.shape[-1]).sqrt().nan_to_num(nan=math.inf)
    return Likelihood(first + costs.mean(-1) + last.mean(-1), error, process.data_space.size, True, process.bound_is_tight, process.bound)


@dataclass(frozen=True)
class _Walk:
    """The terms of a bound that need the network, each for a number of draws a data point, (n, draws)."""

    process: MarkovProcess
    model: Model
    x1: State
    conditions: dict[str, Any]
    size: int
    rng: torch.Generator

    def costs(self, start: float, end: float, draws: int) -> Tensor:
        """Draws whose mean is the integral of the rate of divergence."""
        u = _spread(batch_size(self.x1), draws, self.rng).flatten()

        def cost(rows: Tensor, x1: State, predict: Predictor) -> Tensor:
            return self.process.path_nats(predict, x1, u[rows], start, end, rng=self.rng)

        return self._chunks(cost, draws)

    def last(self, end: float, draws: int) -> Tensor:
        """-log p(x1 given X_end)."""
        n = batch_size(self.x1)
        if end == 1:
            return torch.zeros(n, draws, dtype=torch.float64, device=self.rng.device)

        def cost(rows: Tensor, x1: State, predict: Predictor) -> Tensor:
            t = torch.full((len(rows),), end, dtype=torch.float64, device=rows.device)
            x = self.process.path.sample(x1, t, rng=self.rng)
            return self.process.finish_nats(predict(x, t), x, t, x1)

        return self._chunks(cost, draws)

    def _chunks(self, cost: Callable[[Tensor, State, Predictor], Tensor], draws: int) -> Tensor:
        n = batch_size(self.x1)
        parts = []
        for rows in torch.arange(n * draws, device=self.rng.device).split(self.size):
            x1, given = (tree_map(lambda v, i=rows // draws: v[i], value) for value in (self.x1, self.conditions))
            parts.append(cost(rows, x1, Predictor(self.process, self.model, given)))
        return torch.cat(parts).reshape(n, draws)


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
    x1, conditions, rng = _prepared(process, model, x1, condition, seed, rng)
    end = _end(process, t_end)
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


def _prepared(
    process: MarkovProcess, model: Model, x1: Any, condition: Condition | Tensor | None, seed: int | None, rng: torch.Generator | None
) -> tuple[State, dict[str, Any], torch.Generator]:
    """The data on the model's device, the conditions and the randomness; a model that does not fit fails here."""
    device = device_of(model)
    x1 = tree_map(lambda v: v.to(device), process.data_space.prepare(x1, "x1"))
    conditions = conditions_for(condition, batch_size(x1))
    rng = make_rng(device, seed, rng)
    check_model(process, model, conditions, 1, device)
    return x1, conditions, rng


def _end(process: MarkovProcess, t_end: float | None) -> float:
    end = process.path.t_end if t_end is None else t_end
    if not isinstance(end, int | float) or not process.t_min < end <= 1:
        raise GenmatchError(f"`t_end` must lie in ({process.t_min:g}, 1], got {end!r}; leave it out for the path's own.")
    return float(end)


def _spread(n: int, draws: int, rng: torch.Generator) -> Tensor:
    """Uniform numbers, float64, (n, draws): draw k lies in the k-th of equal intervals, and the samples are spread evenly in each."""
    shift = torch.rand(draws, dtype=torch.float64, device=rng.device, generator=rng)
    places = (torch.arange(n, dtype=torch.float64, device=rng.device).unsqueeze(-1) / n + shift) % 1
    u = (torch.arange(draws, device=rng.device) + places) / draws
    return u.clamp(_EDGE, 1 - _EDGE)


def _stratified_variance(costs: Tensor) -> Tensor:
    """Variance of the mean of draws in neighbouring strata, (B,): from differences of neighbours, which leave the trend out."""
    draws = costs.shape[-1]
    return costs.diff(dim=-1).square().sum(-1) / (2 * (draws - 1) * draws)


def _check_noise(process: MarkovProcess) -> None:
    if process.stationary:
        raise GenmatchError(f"{process} is a corrector, which generates nothing and so has no likelihood; bound the process that it corrects.")
    if not process.has_noise:
        raise GenmatchError(
            f"{process} moves without noise, so that two networks never lead along the same paths and no bound of this kind is finite; "
            "use `gm.log_likelihood`, or a Diffusion on the same path with the same network."
        )


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


__all__ = ["Likelihood", "elbo", "log_likelihood"]
