"""The bound of a process's likelihood: an integral along its path, whatever moves the states.

    -log p(x1)  <=  KL(p_t0(. | x1) || p_0) + integral from t0 to t1 of E kl_rate(X_t) dt + E[-log p(x1 | X_t1)]

`kl_rate` says how fast the path that leads to x1 departs from the network's. The rest is how its integral is drawn: at which states the
network is asked, and what its answer adds. `gm.elbo` and the objectives "elbo" and "streams" call it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from genmatch.paths.base import Path
from genmatch.paths.visits import Visit
from genmatch.tensors import State


class PathLikelihood(ABC):
    """What a process says of the likelihood of its data; all but `kl_rate` has a default that fits most."""

    path: Path
    t_min: float

    @abstractmethod
    def kl_rate(self, output: State, x: State, t: Tensor, x1: State) -> Tensor:
        """Rate at which the path that leads to `x1` departs from the network's, in nats per unit time, (B,).

        Its integral over time, averaged over states of the path, bounds -log p(x1).

        Args:
            output: the network's output at `x` and `t`.
            x: states, drawn from the path at `t`.
            t: times in [t_min, 1), (B,).
            x1: the data points that the states lead to.
        """

    @property
    def bound(self) -> str:
        """Whose likelihood `kl_rate` bounds: the family with its rates or its noise."""
        return repr(self)

    @property
    def bound_is_tight(self) -> bool:
        """Whether the bound is the entropy of the data for the exact network: the process is known to be a time reversal."""
        return False

    def path_nats(
        self, predict: Callable[[State, Tensor], State], x1: State, u: Tensor, start: float, end: float, *, rng: torch.Generator | None = None
    ) -> Tensor:
        """One draw for each data point of the integral of `kl_rate` from `start` to `end` along the path, nats, (B,).

        Args:
            predict: the network: states and times to outputs.
            x1: data points.
            u: numbers in (0, 1), float64, (B,); if they are uniform the draws have no bias.
            start: the earliest time.
            end: the latest time.
            rng: source of randomness.
        """
        visit = self.visit(x1, u, start, end, rng=rng)
        return self.visit_nats(predict(visit.x, visit.t), visit, x1)

    def visit(self, x1: State, u: Tensor, start: float, end: float, *, rng: torch.Generator | None = None) -> Visit:
        """The states at which `path_nats` asks the network; those of the path by default. The arguments are the same."""
        return self.path.visit(x1, u, start, end, rng=rng)

    def visit_nats(self, output: State, visit: Visit, x1: State) -> Tensor:
        """What the network's output at the states of a visit adds to the integral, nats, (B,)."""
        return visit.weight * self.kl_rate(output, visit.x, visit.t, x1)

    def check_sight(self, predict: Callable[[State, Tensor], State], x1: State) -> None:  # noqa: B027 (there is nothing to see for most)
        """Refuses a network that sees, at the states of `visit`, what it is asked for; there is nothing to see for most processes.

        Args:
            predict: the network, for one data point.
            x1: one data point, (1, *shape).
        """

    def streams(self, x1: State, u: Tensor, *, rng: torch.Generator | None = None) -> Visit:
        """What a network of two streams is shown in training, so that one call says all of the bound that it can; `visit` by default.

        Args:
            x1: data points.
            u: numbers in (0, 1), float64, (B,).
            rng: source of randomness.
        """
        return self.visit(x1, u, self.t_min, self.path.t_end, rng=rng)

    def streams_nats(self, output: State, visit: Visit, x1: State) -> Tensor:
        """What the output at a `visit` of `streams` adds to the bound, nats, (B,)."""
        return self.visit_nats(output, visit, x1)

    def finish_nats(self, output: State, x: State, t: Tensor, x1: State) -> Tensor:
        """-log probability of `x1` for a last step from states `x` at late times `t`, in nats, (B,), or its mean over such states."""
        return self.path.data_nats(x1, t)
