r"""Schedules: how fast noise becomes data.

A Gaussian path is $X_t = \alpha_t x_1 + \sigma_t x_0$; a mixture path keeps a token of the data with probability
$\kappa_t = 1 - \sigma_t$. One schedule serves both. Every value and derivative is a closed form in float64, written so
that no digits cancel near the ends, and exact at $t = 0$ and $t = 1$: `cos(pi/2)` is 6e-17, not 0, and that is enough to
ruin a multistep solver.

Sources: "Flow Matching Guide and Code" (Lipman et al., 2024), https://arxiv.org/abs/2412.06264, section 4.7;
"Score-Based Generative Modeling through SDEs" (Song et al., 2021), https://arxiv.org/abs/2011.13456, appendix B.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, number_in

_HALVINGS = 54
_ONE = torch.ones((), dtype=torch.float64)
"""As a tensor: subtracting from the number 1 takes torch three times as long, and a solver asks for sigma at every step."""


class Schedule(ABC):
    """The coefficients alpha, sigma and kappa of a path, as functions of times `t` of any shape.

    All methods take times in [0, 1], with 0 = noise and 1 = data, and return float64 tensors of the same shape.
    """

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Coefficient of the data."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Coefficient of the noise, and for tokens the probability 1 - kappa that a token is still noise."""

    @abstractmethod
    def d_alpha(self, t: Tensor) -> Tensor:
        """Time derivative of alpha."""

    @abstractmethod
    def d_sigma(self, t: Tensor) -> Tensor:
        """Time derivative of sigma."""

    @property
    def source_std(self) -> float:
        """Standard deviation of the noise that a simulation starts from."""
        return 1.0

    @property
    def caveats(self) -> dict[str, str]:
        """Laws of a path that this schedule keeps only approximately: the name of the check, and the reason."""
        return {}

    def delta(self, t: Tensor) -> Tensor:
        """alpha' sigma - alpha sigma', positive inside (0, 1)."""
        return self.d_alpha(t) * self.sigma(t) - self.alpha(t) * self.d_sigma(t)

    def log_snr(self, t: Tensor) -> Tensor:
        """lambda = log(alpha / sigma), half the logarithm of the signal-to-noise ratio; -inf where alpha is 0 and inf where sigma is."""
        return torch.log(self.alpha(t)) - torch.log(self.sigma(t))

    def kappa(self, t: Tensor) -> Tensor:
        """Probability that a token is data already.

        Raises:
            GenmatchError: for a schedule whose sigma does not run from 1 to 0.
        """
        raise GenmatchError(f"{self} has no kappa: its sigma does not run from 1 to 0; use CondOT, Cosine or Polynomial for tokens.")

    def d_kappa(self, t: Tensor) -> Tensor:
        """Time derivative of kappa."""
        return -self.d_sigma(t)

    def rate(self, t: Tensor) -> Tensor:
        """w = kappa' / (1 - kappa), the rate at which noise becomes data; infinite at t = 1."""
        return -self.d_sigma(t) / self.sigma(t)

    def backward_rate(self, t: Tensor) -> Tensor:
        """b = kappa' / kappa, the rate at which data becomes noise in reverse time; infinite at t = 0."""
        kappa = self.kappa(t)
        return torch.where(kappa > 0, self.d_kappa(t) / kappa, torch.inf)

    def jump_probability(self, t: Tensor, s: Tensor) -> Tensor:
        """(kappa_s - kappa_t) / (1 - kappa_t), the probability that noise at `t` is data at the later time `s`."""
        sigma_t = self.sigma(t)
        return (sigma_t - self.sigma(s)) / sigma_t

    def time_at(self, sigma: Tensor) -> Tensor:
        """The time at which a falling sigma has the given values, float64; 0 or 1 beyond its range. By bisection unless a schedule knows better.

        Example:
            >>> Cosine().time_at(Cosine().sigma(torch.tensor([0.0, 0.25, 1.0])))
            tensor([0.0000, 0.2500, 1.0000], dtype=torch.float64)
        """
        ends = self.sigma(torch.tensor([0.0, 1.0], dtype=torch.float64))
        middle = _bisect(lambda t: self.sigma(t) > sigma, sigma)
        return torch.where(sigma <= ends[1], 1.0, torch.where(sigma >= ends[0], 0.0, middle))

    def time_at_log_snr(self, log_snr: Tensor) -> Tensor:
        """The time at which `log_snr` has the given values, float64; 0 or 1 beyond its range. By bisection unless a schedule knows better.

        Example:
            >>> CondOT().time_at_log_snr(torch.tensor([-torch.inf, 0.0, torch.inf]))
            tensor([0.0000, 0.5000, 1.0000], dtype=torch.float64)
        """
        ends = self.log_snr(torch.tensor([0.0, 1.0], dtype=torch.float64))
        middle = _bisect(lambda t: self.log_snr(t) < log_snr, log_snr)
        return torch.where(log_snr >= ends[1], 1.0, torch.where(log_snr <= ends[0], 0.0, middle))


def _bisect(early: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """Times in (0, 1) at which the condition `early` stops to hold, float64, of the shape of `like`."""
    low, high = torch.zeros_like(like, dtype=torch.float64), torch.ones_like(like, dtype=torch.float64)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        before = early(middle)
        low, high = torch.where(before, middle, low), torch.where(before, high, middle)
    return (low + high) / 2


@dataclass(frozen=True)
class CondOT(Schedule):
    """Straight lines: alpha = kappa = t, sigma = 1 - t.

    Example:
        >>> CondOT().sigma(torch.tensor([0.0, 0.25, 1.0])).tolist()
        [1.0, 0.75, 0.0]
    """

    def alpha(self, t: Tensor) -> Tensor:
        return t.double()

    def sigma(self, t: Tensor) -> Tensor:
        return _ONE - t.double()

    def d_alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t, dtype=torch.float64)

    def d_sigma(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t, dtype=torch.float64)

    def kappa(self, t: Tensor) -> Tensor:
        return t.double()

    def time_at(self, sigma: Tensor) -> Tensor:
        return (1 - sigma.double()).clamp(0, 1)

    def time_at_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(log_snr.double())


@dataclass(frozen=True)
class Cosine(Schedule):
    """alpha = sin(pi t / 2), sigma = cos(pi t / 2), kappa = 1 - cos(pi t / 2): variance preserving."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sin(math.pi / 2 * t.double())

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(math.pi / 2 * (1 - t.double()))

    def d_alpha(self, t: Tensor) -> Tensor:
        return math.pi / 2 * self.sigma(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        return -math.pi / 2 * self.alpha(t)

    def kappa(self, t: Tensor) -> Tensor:
        return torch.where(t < 0.5, 2 * torch.sin(math.pi / 4 * t.double()) ** 2, 1 - self.sigma(t))

    def time_at(self, sigma: Tensor) -> Tensor:
        return 2 / math.pi * torch.acos(sigma.double().clamp(0, 1))

    def time_at_log_snr(self, log_snr: Tensor) -> Tensor:
        return 2 / math.pi * torch.atan(torch.exp(log_snr.double()))


@dataclass(frozen=True)
class Polynomial(Schedule):
    """alpha = kappa = t^n, sigma = 1 - t^n.

    Args:
        n: the exponent, positive. For n > 1 the velocity at t = 0 does not determine the data.
    """

    n: float = 2.0

    def __post_init__(self) -> None:
        number_in("(0, inf)", self.n, "n", "1 is `CondOT()`")

    def alpha(self, t: Tensor) -> Tensor:
        return t.double() ** self.n

    def sigma(self, t: Tensor) -> Tensor:
        # 1 - t^n; `abs`, as a minus sign would make the zero at t = 1 negative and the rate minus infinity.
        return torch.expm1(self.n * torch.log1p(t.double() - 1)).abs()

    def d_alpha(self, t: Tensor) -> Tensor:
        return self.n * t.double() ** (self.n - 1)

    def d_sigma(self, t: Tensor) -> Tensor:
        return -self.d_alpha(t)

    def kappa(self, t: Tensor) -> Tensor:
        return self.alpha(t)

    def time_at(self, sigma: Tensor) -> Tensor:
        return (1 - sigma.double()).clamp(0, 1) ** (1 / self.n)

    def time_at_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(log_snr.double()) ** (1 / self.n)


@dataclass(frozen=True)
class VP(Schedule):
    """Variance preserving with a linear beta: alpha = exp(-B(1-t)/2), sigma^2 = 1 - alpha^2.

    B(u) = beta_min u + (beta_max - beta_min) u^2 / 2. At t = 0 a trace of the data is left, alpha = 0.0066.

    Args:
        beta_min: noise rate at t = 1.
        beta_max: noise rate at t = 0.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        number_in("(0, inf)", self.beta_min, "beta_min", "it is the noise rate at t = 1")
        number_in(f"[{self.beta_min}, inf)", self.beta_max, "beta_max", "it is the noise rate at t = 0, at least `beta_min`")

    def _integral(self, t: Tensor) -> Tensor:
        u = 1 - t.double()
        return self.beta_min * u + (self.beta_max - self.beta_min) * u**2 / 2

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-self._integral(t) / 2)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self._integral(t)))

    def d_alpha(self, t: Tensor) -> Tensor:
        beta = self.beta_min + (self.beta_max - self.beta_min) * (1 - t.double())
        return beta * self.alpha(t) / 2

    def d_sigma(self, t: Tensor) -> Tensor:
        return -self.alpha(t) * self.d_alpha(t) / self.sigma(t)

    def time_at(self, sigma: Tensor) -> Tensor:
        return self._time_of(-torch.log1p(-(sigma.double().clamp(0, 1) ** 2)))

    def time_at_log_snr(self, log_snr: Tensor) -> Tensor:
        return self._time_of(torch.logaddexp(torch.zeros((), dtype=torch.float64, device=log_snr.device), -2 * log_snr.double()))

    def _time_of(self, integral: Tensor) -> Tensor:
        """The time at which B has the given values: the positive root of a quadratic, written without a difference."""
        integral = integral.clamp(max=float(self._integral(torch.zeros(()))))
        root = torch.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * integral)
        return (1 - 2 * integral / (self.beta_min + root)).clamp(0, 1)

    @property
    def caveats(self) -> dict[str, str]:
        alpha_0 = float(self.alpha(torch.zeros(())))
        return {"source": f"VP leaves a trace of the data at t = 0: alpha = {alpha_0:.2g}, where the source has none."}


@dataclass(frozen=True)
class VE(Schedule):
    """Variance exploding: alpha = 1, sigma = sigma_max^(1-t) sigma_min^t.

    Args:
        sigma_min: noise that is left at t = 1.
        sigma_max: standard deviation of the source; large against the data.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        number_in("(0, inf)", self.sigma_min, "sigma_min", "it is the noise at t = 1")
        number_in(f"({self.sigma_min}, inf)", self.sigma_max, "sigma_max", "it is the noise at t = 0, more than `sigma_min`")

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t, dtype=torch.float64)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_max ** (1 - t.double()) * self.sigma_min ** t.double()

    def d_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t, dtype=torch.float64)

    def d_sigma(self, t: Tensor) -> Tensor:
        return self.sigma(t) * math.log(self.sigma_min / self.sigma_max)

    def time_at(self, sigma: Tensor) -> Tensor:
        return self.time_at_log_snr(-sigma.double().log())

    def time_at_log_snr(self, log_snr: Tensor) -> Tensor:
        return ((log_snr.double() + math.log(self.sigma_max)) / math.log(self.sigma_max / self.sigma_min)).clamp(0, 1)

    @property
    def source_std(self) -> float:
        return self.sigma_max

    @property
    def caveats(self) -> dict[str, str]:
        return {
            "source": f"VE starts from noise of standard deviation {self.sigma_max:g} without the data's mean.",
            "data": f"VE ends with noise of standard deviation {self.sigma_min:g} on the data.",
        }
