r"""The interface of a Markov process that learns to generate.

Generator Matching in three lines. The conditional generator of a process is affine in the mean $m$ of a statistic
`target(x, t, x1)`; averaging it over the posterior of the data point gives a generator of the data (the marginalization
trick); and any Bregman divergence learns that average:

    conditional generator  =  generator(natural(m), x, t)
    marginal generator     =  generator(natural(E[m | X_t = x]), x, t)
    loss                   =  divergence(m, output), whose minimiser is E[m | X_t = x]

`natural` and `mean` are the link of a generalised linear model: a network outputs natural parameters (vectors, logits), a
target is a mean parameter (vectors, tokens).

Source: "Generator Matching" (Holderrieth et al., ICLR 2025), https://arxiv.org/abs/2410.20587, propositions 1 and 2.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.generators import Generator
from genmatch.paths.base import Path
from genmatch.paths.couplings import Coupling
from genmatch.processes.path_likelihood import PathLikelihood
from genmatch.spaces import Space
from genmatch.tensors import State

Predict = Callable[[State, Tensor], State]
"""The network with its conditions bound: states and times, (B,), to outputs."""

LogWeight = Callable[[State, Tensor], Tensor]
"""States, (N, ...), and the rows of the batch that they come from, (N,), to log weights, (N,)."""


class MarkovProcess(PathLikelihood):
    """A Markov process with a conditional path, ready to be learned and simulated.

    A new process defines `target` and `generator`, names the kinds of terms of its generator in `kinds`, and overrides
    the rest only where the statistic is not a vector.

    In this order: what is learned, from `target` to `divergence`; facts that training, sampling and the command line ask for, from
    `sparse` to `is_flow`; what its likelihood is, `bounded` and `kl_rate`, the bound itself being that of `PathLikelihood`; and optional draws
    with a network's output frozen, from `transition` on, which `supports` knows.
    """

    path: Path
    kinds: frozenset[str]
    """What the generator is made of: a subset of "drift", "geodesic drift", "brownian" and "jump". Solvers ask for it."""

    @abstractmethod
    def target(self, x: State, t: Tensor, x1: State, *, x0: State | None = None) -> State:
        """The statistic m(x, t, x1) whose posterior mean given x is learned, (B, ...).

        Args:
            x: states, drawn from the path at `t`.
            t: times in [0, 1), (B,).
            x1: the data points that the states lead to.
            x0: the noise that they came from, where it is known.
        """

    @abstractmethod
    def generator(self, output: State, x: State, t: Tensor) -> Generator:
        """The generator at states `x` and times `t` in [t_min, 1), affine in `mean(output)`."""

    def natural(self, target: State) -> State:
        """The network output whose mean is `target`, or is the average of targets."""
        return target

    def mean(self, output: State) -> State:
        """The mean parameter of a network's output; inverse of `natural`."""
        return output

    def natural_at(self, target: State, x: State, t: Tensor) -> State:
        """`natural` for states `x` at times `t`, which is what the library calls.

        Override this pair instead of `natural` and `mean` where the meaning of the output depends on the state; what is averaged
        must not.
        """
        return self.natural(target)

    def mean_at(self, output: State, x: State, t: Tensor) -> State:
        """`mean` for states `x` at times `t`; inverse of `natural_at`."""
        return self.mean(output)

    def average(self, targets: State, weights: Tensor) -> State:
        """Posterior mean over a finite set.

        Args:
            targets: targets of N data points for each state, (B, N, ...).
            weights: probabilities over them, (B, N).
        """
        return (targets * weights.to(targets.dtype).reshape(*weights.shape, *[1] * (targets.dim() - 2))).sum(1)

    def divergence(self, target: State, output: State, x: State, t: Tensor) -> Tensor:
        """Bregman divergence of `mean(output)` from `target`, summed over coordinates, (B,); squared error by default.

        A factor that depends on `x` and `t` alone is free: it leaves the minimiser where it is.
        """
        return ((target - output) ** 2).flatten(1).sum(-1)

    sparse: bool = False
    """Whether all methods but `generator` read a network's output only as `output[mask]` and `output.shape`."""

    solver: str | None = None
    """Name of the recommended solver; the first in the list that fits, if None."""

    network: Mapping[str, object] = MappingProxyType({})
    """What a reference network must be besides fitting the space, as keyword arguments of its constructor, such as `causal=True`."""

    objective: str = "divergence"
    """Name of the recommended objective of training: all of them have the exact network as their minimiser."""

    recipe: Mapping[str, str] = MappingProxyType({})
    """What `genmatch explain` says of this process in place of docstrings: by "path", "target", "generator" or "divergence"."""

    t_min: float = 0.0
    """The earliest time at which a generator can be computed from a network's output; simulation starts there."""

    stationary: bool = False
    """Whether this is a corrector: a process that leaves every p_t as it is, and only serves as a term of a superposition."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path})"

    @property
    def space(self) -> Space:
        """Where the states live."""
        return self.path.space

    @property
    def data_space(self) -> Space:
        """Where the data points live that this process can lead to; that of its path by default."""
        return self.path.data_space

    @property
    def output_shape(self) -> tuple[int, ...] | Mapping[str, tuple[int, ...]]:
        """Shape of what a network returns for one state; the shape of the state by default."""
        return self.path.space.shape  # type: ignore[attr-defined]

    @property
    def caveats(self) -> Mapping[str, str]:
        """Checks that this process is known to fail, with the reason."""
        return self.path.caveats

    @property
    def has_noise(self) -> bool:
        """Whether two networks' path measures can be compared: no part drifts without Brownian noise."""
        return "brownian" in self.kinds or not any("drift" in kind for kind in self.kinds)

    @property
    def is_flow(self) -> bool:
        """Whether nothing but a drift moves the states, so that one trajectory leads to each data point."""
        return all("drift" in kind for kind in self.kinds)

    def bounded(self) -> MarkovProcess:
        """The process on the same path and for the same network whose likelihood has a bound: itself, if it has noise. Optional.

        Raises:
            GenmatchError: if it has none.
        """
        if self.has_noise:
            return self
        raise GenmatchError(f"{self} drifts without noise, and no process with noise is known that follows its path with the same network.")

    def kl_rate(self, output: State, x: State, t: Tensor, x1: State) -> Tensor:
        """The divergence `kl` of the conditional generator, which leads to `x1`, from that of the network's output, (B,)."""
        conditional = self.generator(self.natural_at(self.target(x, t, x1), x, t), x, t)
        return conditional.kl(self.generator(output, x, t), x)

    def transition(self, output: State, x: State, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> State:
        """Draws X_s given X_t = x exactly, if the network's output did not change on [t, s]. Optional.

        Args:
            output: the network's output at `x` and `t`.
            x: states at `t`.
            t: times in [t_min, 1), (B,).
            s: later times, up to 1, (B,).
            rng: source of randomness.

        Raises:
            GenmatchError: if this process has no such draw; simulate its generator instead.
        """
        raise GenmatchError(f"{type(self).__name__} defines no `transition`; use solver='euler', which needs only its generator.")

    def finish(self, output: State, x: State, t: Tensor, *, rng: torch.Generator | None = None) -> State:
        """Draws X_1 given X_t = x, if the network's output did not change on [t, 1]; by default `transition` to s = 1. Optional."""
        return self.transition(output, x, t, torch.ones_like(t), rng=rng)

    def tilted(self, output: State, x: State, t: Tensor, log_weight: LogWeight) -> State:
        """The network's output if the law of the states were p_t(x) exp(log_weight(x)), such as p_t(x | c): for classifiers. Optional.

        Args:
            output: the network's output at `x` and `t`.
            x: states at `t`.
            t: times in (0, 1), (B,).
            log_weight: of any states and the rows that they come from; where states are vectors, differentiable in them.

        Raises:
            GenmatchError: if that does not follow from `log_weight`, for the reason that `tilt_misfit` gives.
        """
        raise GenmatchError(f"{self} has no output of another law of its states: {self.tilt_misfit}.")

    @property
    def tilt_misfit(self) -> str | None:
        """Why this process has no `tilted`; None if it has."""
        return None if self.supports("tilted") else f"{type(self).__name__} defines no `tilted`"

    def intensity_bound(self, x: State, t: Tensor, s: Tensor) -> Tensor:
        """At least the intensity of each coordinate's clock from `t` to `s`, whatever the output, while the state is `x`, (B, *shape). Optional.

        Raises:
            GenmatchError: if this process has no such bound.
        """
        raise GenmatchError(f"{type(self).__name__} defines no `intensity_bound`, which only simulation by thinning needs.")

    def coupled(self, coupling: Coupling) -> MarkovProcess:
        """This process on the same path with another coupling of noise and data, for `gm.recipes.reflow`. Optional.

        Raises:
            GenmatchError: if this process needs noise that is independent of the data, or its path takes no such coupling.
        """
        raise GenmatchError(f"{type(self).__name__} defines no `coupled`: its noise must be independent of the data.")

    def supports(self, ability: str) -> bool:
        """Whether this process defines the optional method `ability`, such as "transition"; `finish` follows from that."""
        if ability == "finish" and self.supports("transition"):
            return True
        return getattr(type(self), ability, None) is not getattr(MarkovProcess, ability, None)


def require_process(process: MarkovProcess, interface: tuple[str, ...] = ()) -> None:
    """Refuses what is no process, such as a class, or a network in its place, and a process that lacks something.

    Args:
        process: what was given as one.
        interface: the attributes that it must have besides a path, which a message then names.

    Raises:
        GenmatchError: unless `process` is an instance with a path and these attributes.
    """
    missing = [name for name in ("path", *interface) if not hasattr(process, name)]
    if missing and isinstance(process, MarkovProcess):
        raise _incomplete(process, missing)
    if missing or isinstance(process, type):
        what = f"the class {process.__name__}" if isinstance(process, type) else type(process).__name__
        hint = f", which has no {', '.join(f'`{name}`' for name in missing[:3])}" if interface and missing else ""
        raise GenmatchError(f"`process` must be a MarkovProcess, got {what}{hint}; pass an instance, such as `gm.Flow(path)`.")


def _incomplete(process: MarkovProcess, missing: list[str]) -> GenmatchError:
    """The error for a process that lacks an attribute, or whose path does."""
    name = type(process).__name__
    if "path" not in missing and not hasattr(process.path, "space"):
        return GenmatchError(f"the path of {name}, {type(process.path).__name__}, has no `space`; set it in the constructor of the path.")
    if missing[0] == "kinds":
        return GenmatchError(f"{name} has no `kinds`, the kinds of terms of its generator; declare it, such as `kinds = frozenset({{'jump'}})`.")
    return GenmatchError(f"{name} has no `{missing[0]}`; set it in the constructor, or declare it in the class.")
