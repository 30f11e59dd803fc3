"""Processes broken on purpose, each with the check that must catch it.

A mutant is a correct process seen through a wrapper that changes one method: `MUTANTS` has a row for each.
"""

import functools
import math

import torch

import genmatch as gm
from genmatch.generators import Brownian, Categorical, Drift, Jump, Sum
from genmatch.logits import draw_categorical
from genmatch.paths import Blocks, Discrete, Gaussian, Geodesic, Metric, Mixture, Noising, Path, RealMixture
from genmatch.paths.couplings import Coupling, OptimalTransport
from genmatch.paths.gaussian_jumps import Flux
from genmatch.processes import MarkovProcess
from genmatch.schedules import CondOT, Cosine, Polynomial, Schedule
from genmatch.spaces import SO3, Grid, Sphere, Torus
from genmatch.tensors import expand


class BrokenSchedule(Schedule):
    """A schedule with some of its functions replaced."""

    def __init__(self, good=CondOT(), **changes):  # noqa: B008
        self.good, self.changes = good, changes

    def _call(self, name, t):
        return self.changes.get(name, getattr(self.good, name))(t)

    def alpha(self, t):
        return self._call("alpha", t)

    def sigma(self, t):
        return self._call("sigma", t)

    def d_alpha(self, t):
        return self._call("d_alpha", t)

    def d_sigma(self, t):
        return self._call("d_sigma", t)

    def kappa(self, t):
        return self._call("kappa", t)


class BrokenPath(Path):
    """A path with some of its methods replaced; each receives the correct path first."""

    def __init__(self, good, **changes):
        self.good, self.space, self.changes = good, good.space, changes
        self.coupling = changes.get("coupling", good.coupling)

    def __repr__(self):
        return f"Broken({self.good})"

    @property
    def data_space(self):
        return self.good.data_space

    def _call(self, name, *args):
        change = self.changes.get(name)
        return change(self.good, *args) if change else getattr(self.good, name)(*args)

    def _source(self, n, rng):
        return self._call("_source", n, rng)

    def _sample(self, x1, t, x0, rng):
        return self._call("_sample", x1, t, x0, rng)

    def _log_prob(self, x, t, x1):
        return self._call("_log_prob", x, t, x1)


class Broken(MarkovProcess):
    """A process with some of its methods replaced; each receives the correct process first."""

    def __init__(self, good, path=None, kinds=None, output_shape=None, caveats=None, **changes):
        self.good, self.path, self.changes = good, path or good.path, changes
        self.kinds = kinds or good.kinds
        self.t_min = good.t_min
        self._output_shape = output_shape or good.output_shape
        self._caveats = caveats or {}

    def __repr__(self):
        return f"Broken({self.good})"

    @property
    def output_shape(self):
        return self._output_shape

    @property
    def caveats(self):
        return self._caveats

    def supports(self, ability):
        return self.good.supports(ability)

    def _call(self, name, *args, **options):
        change = self.changes.get(name)
        return change(self.good, *args, **options) if change else getattr(self.good, name)(*args, **options)

    def target(self, x, t, x1, *, x0=None):
        return self._call("target", x, t, x1, x0=x0)

    def generator(self, output, x, t):
        return self._call("generator", output, x, t)

    def natural(self, target):
        return self._call("natural", target)

    def mean(self, output):
        return self._call("mean", output)

    def natural_at(self, target, x, t):
        return self.natural(target) if "natural" in self.changes else self._call("natural_at", target, x, t)

    def mean_at(self, output, x, t):
        return self.mean(output) if "mean" in self.changes else self._call("mean_at", output, x, t)

    def average(self, targets, weights):
        return self._call("average", targets, weights)

    def divergence(self, target, output, x, t):
        return self._call("divergence", target, output, x, t)

    def transition(self, output, x, t, s, *, rng=None):
        return self._call("transition", output, x, t, s, rng=rng)

    def finish(self, output, x, t, *, rng=None):
        if "transition" in self.changes and "finish" not in self.changes:
            return super().finish(output, x, t, rng=rng)
        return self._call("finish", output, x, t, rng=rng)


FLOW = gm.Flow(Gaussian((2,)))
FLOWS = {name: gm.Flow(Gaussian((2,)), prediction=name) for name in ("data", "noise", "score")}
DIFFUSION = gm.Diffusion(Gaussian((2,)), noise=1.0)
MASK = gm.CTMC(Mixture((2,), vocab_size=3))
UNIFORM = gm.CTMC(Mixture((2,), vocab_size=3, source="uniform"))
LAW = gm.CTMC(Mixture((2,), vocab_size=3, source=torch.tensor([0.6, 0.3, 0.1])))


def scaled_generator(factor):
    """The clock of the whole generator runs too fast or too slow."""
    return lambda good, output, x, t: good.generator(output, x, t) * factor


def flow_with(schedule, prediction="velocity"):
    return gm.Flow(Gaussian((2,), schedule=schedule), prediction=prediction)


def ctmc_with(schedule, source="uniform"):
    return gm.CTMC(Mixture((2,), vocab_size=3, source=source, schedule=schedule))


# Flows


def reversed_velocity(good, output, x, t):
    return Drift(-good.predict(output, x, t, "velocity"))


def quadratic_velocity(good, output, x, t):
    v = good.predict(output, x, t, "velocity")
    return Drift(v + 0.1 * v**2)


def mean_as_constant(good, output, x, t):
    """Averages x1 over a non-linear function of the output: an unbiased conditional, a wrong marginal."""
    return Drift((torch.tanh(output) - x) / expand(1 - t, x))


def swapped_ddim(good, output, x, t, s, *, rng=None):
    return good.transition(output, x, s, t, rng=rng)


def half_way(good, output, x, t, s, *, rng=None):
    return good.transition(output, x, t, (t + s) / 2, rng=rng)


def l1(good, target, output, x, t):
    return (target - output).abs().flatten(1).sum(-1)


def weighted_by_target(good, target, output, x, t):
    return good.divergence(target, output, x, t) * (1 + target.flatten(1).norm(dim=-1))


def negative_divergence(good, target, output, x, t):
    return -good.divergence(target, output, x, t)


def cubed(good, target, output, x, t):
    return (target - output).abs().pow(3).flatten(1).sum(-1)


def scalar_loss(good, target, output, x, t):
    return good.divergence(target, output, x, t).sum()


def writing_target(good, x, t, x1, *, x0=None):
    target = good.target(x, t, x1, x0=x0)
    x1.mul_(1.5)
    return target


def writing_transition(good, output, x, t, s, *, rng=None):
    return x.copy_(good.transition(output, x, t, s, rng=rng))


def clamping_generator(good, output, x, t):
    return good.generator(output.clamp_(-0.1, 0.1), x, t)


def same_time(method):
    """The first sample's time for the whole batch."""

    def changed(good, *args, **options):
        args = [a[:1].expand_as(a) if isinstance(a, torch.Tensor) and a.dim() == 1 and a.is_floating_point() else a for a in args]
        return getattr(good, method)(*args, **options)

    return changed


def doubled_step(good, output, x, t, s, *, rng=None):
    return good.transition(output, x, t, s, rng=rng).double()


def root_near_the_end(good, target, output, x, t):
    """A weight that a derivative cannot pass: sqrt(|error|^2 * 0) at t = 1 - 1e-6."""
    error = good.divergence(target, output, x, t)
    weight = torch.where(t < 1 - 1e-5, 1.0, 0.0)
    return torch.sqrt(error * weight.to(error.dtype)) ** 2


def wrong_noise(good, x, t, x1, *, x0=None):
    return good.target(x, t, x1, x0=None if x0 is None else -x0)


# Diffusions


def parts(good, output, x, t, score=1.0, variance=1.0):
    g2 = expand(good.g(t) ** 2, x)
    velocity = good.predict(output, x, t, "velocity") + score * g2 / 2 * good.predict(output, x, t, "score")
    return Drift(velocity) + Brownian(variance * g2)


def fresh_noise(good, output, x, t, s, *, rng=None):
    return good.bridge(output, x, t, s, torch.zeros_like(t), rng=rng)


def global_noise(good, output, x, t, s, *, rng=None):
    return good.transition(output, x, t, s, rng=None)


class WideSteps(Brownian):
    """Noise of the wrong size in `step` alone."""

    def step(self, x, h, *, rng=None):
        return super().step(x, 1.1 * h, rng=rng)


class WideDiffusion(Sum):
    def step(self, x, h, *, rng=None):
        return self.drift.step(WideSteps(self.brownian.variance).step(x, h, rng=rng), h)


# Chains


def without_noise_check(good, output, x, t):
    """Tokens that are data jump too: what the mask carries over is lost."""
    rate = good.path.schedule.rate(t).to(output.dtype)
    return Jump(expand(rate, output[..., 0]) * torch.ones_like(x), Categorical(output))


def sharpened(good, output, x, t):
    return good.generator(2 * output, x, t)


def negative_rates(good, output, x, t):
    jump = good.generator(output, x, t)
    backwards = Jump(-0.5 * jump.intensity, Categorical(output.roll(1, -1)))
    return jump + backwards


class SlowJump(Jump):
    """Jumps too rarely in `step` alone."""

    def step(self, x, h, *, rng=None):
        return super().step(x, 0.9 * h, rng=rng)


def slow_jump(good, output, x, t):
    jump = good.generator(output, x, t)
    return SlowJump(jump.intensity, jump.destination)


def rarely(good, output, x, t, s, *, rng=None):
    jumped = good.transition(output, x, t, s, rng=rng)
    stay = torch.rand(x.shape, generator=rng) < 0.1
    return torch.where(stay, x, jumped)


def most_likely(good, output, x, t, s, *, rng=None):
    jumps = good.transition(output, x, t, s, rng=rng) != x
    return torch.where(jumps, output.argmax(-1), x)


def float_tokens(good, output, x, t, s, *, rng=None):
    return good.transition(output, x, t, s, rng=rng).float()


def mse_of_tokens(good, target, output, x, t):
    """Squared error of probabilities raised to a power: not a Bregman divergence."""
    return (good.mean(output).clamp_min(1e-3).log() - good.natural(target).clamp_min(math.log(1e-3))).abs().flatten(1).sum(-1)


def unweighted(good, targets, weights):
    return good.average(targets, torch.full_like(weights, 1 / weights.shape[1]))


def unnormalised(good, x, t, x1):
    return good._log_prob(x, t, x1) + 0.1 * t


def wide_source(good, n, rng):
    return 1.1 * good._source(n, rng)


def wrong_token_source(good, n, rng):
    x = good._source(n, rng)
    return torch.where(torch.rand(x.shape, generator=rng) < 0.05, 0, x)


def wide_sample(good, x1, t, x0, rng):
    mean = expand(good.schedule.alpha(t), x1) * x1
    return mean + 1.05 * (good._sample(x1, t, x0, rng) - mean)


def late_sample(good, x1, t, x0, rng):
    return good._sample(x1, t**1.05, x0, rng)


def global_sample(good, x1, t, x0, rng):
    return good._sample(x1, t, x0, None)


def deaf_sample(good, x1, t, x0, rng):
    return good._sample(x1, t, x0, torch.Generator().manual_seed(0))


def float32_sample(good, x1, t, x0, rng):
    return good._sample(x1.float(), t, None if x0 is None else x0.float(), rng)


MUTANTS = [
    # name, broken process, the check that must catch it
    ("flow: velocity times 1.1", Broken(FLOW, generator=scaled_generator(1.1)), "forward-conditional"),
    ("flow: velocity times 1.1, marginal", Broken(FLOW, generator=scaled_generator(1.1)), "forward-marginal"),
    ("flow: wrong sign", Broken(FLOW, generator=reversed_velocity), "forward-conditional"),
    *((f"flow, {name}: velocity times 1.1", Broken(flow, generator=scaled_generator(1.1)), "forward-conditional") for name, flow in FLOWS.items()),
    ("flow: a generator that is not affine", Broken(FLOW, generator=quadratic_velocity), "affine"),
    ("flow, data: tanh of the prediction", Broken(FLOWS["data"], generator=mean_as_constant), "affine"),
    ("flow: average without weights", Broken(FLOW, average=unweighted), "forward-marginal"),
    ("flow: natural that is no inverse of mean", Broken(FLOW, natural=lambda good, m: 1.1 * m), "link"),
    ("flow: t and s swapped", Broken(FLOWS["data"], transition=swapped_ddim), "transition-path"),
    ("flow: half a transition", Broken(FLOW, transition=half_way), "transition-path"),
    ("flow: half a transition, small steps", Broken(FLOW, transition=half_way), "transition-generator"),
    ("flow: L1 loss", Broken(FLOW, divergence=l1), "bregman"),
    ("flow: cubed error", Broken(FLOW, divergence=cubed), "bregman"),
    ("flow: loss weighted by x1", Broken(FLOW, divergence=weighted_by_target), "bregman"),
    ("flow: negative loss", Broken(FLOW, divergence=negative_divergence), "bregman"),
    ("flow: one loss for the batch", Broken(FLOW, divergence=scalar_loss), "shapes"),
    ("flow: target writes to x1", Broken(FLOW, target=writing_target), "inputs-untouched"),
    ("flow: transition writes to x", Broken(FLOW, transition=writing_transition), "inputs-untouched"),
    ("flow: generator writes to output", Broken(FLOW, generator=clamping_generator), "inputs-untouched"),
    *((f"flow: one time for the batch in {name}", Broken(FLOWS["noise"], **{name: same_time(name)}), "times") for name in ("target", "generator", "transition")),
    ("flow: one time for the batch in divergence", Broken(FLOWS["score"], divergence=same_time("divergence")), "times"),
    ("flow: float64 transition of float32 states", Broken(FLOW, transition=doubled_step), "shapes"),
    ("flow: NaN gradient near t = 1", Broken(FLOW, divergence=root_near_the_end), "finite-gradients"),
    ("flow: wrong output shape", Broken(FLOW, output_shape=(3,)), "shapes"),
    ("flow: wrong kinds", Broken(FLOW, kinds=frozenset({"drift", "brownian"})), "shapes"),
    ("flow: wrong use of x0", Broken(FLOW, target=wrong_noise), "target-x0"),
    ("flow: source too wide", Broken(FLOW, path=BrokenPath(FLOW.path, _source=wide_source)), "source"),
    ("flow: samples too wide", Broken(FLOW, path=BrokenPath(FLOW.path, _sample=wide_sample)), "path-samples"),
    ("flow: samples late", Broken(FLOW, path=BrokenPath(FLOW.path, _sample=late_sample)), "forward-conditional"),
    ("flow: samples from the global generator", Broken(FLOW, path=BrokenPath(FLOW.path, _sample=global_sample)), "seeds"),
    ("flow: samples deaf to the seed", Broken(FLOW, path=BrokenPath(FLOW.path, _sample=deaf_sample)), "seeds"),
    ("flow: samples in float32", Broken(FLOW, path=BrokenPath(FLOW.path, _sample=float32_sample)), "shapes"),
    ("flow: one time for the batch in sample", Broken(FLOW, path=BrokenPath(FLOW.path, _sample=same_time("_sample"))), "times"),
    ("flow: one time for the batch in log_prob", Broken(FLOW, path=BrokenPath(FLOW.path, _log_prob=same_time("_log_prob"))), "times"),
    ("diffusion: score times 1.1", Broken(DIFFUSION, generator=lambda *a: parts(*a, score=1.1)), "forward-conditional"),
    ("diffusion: no score", Broken(DIFFUSION, generator=lambda *a: parts(*a, score=0.0)), "forward-conditional"),
    ("diffusion: no score, marginal", Broken(DIFFUSION, generator=lambda *a: parts(*a, score=0.0)), "forward-marginal"),
    ("diffusion: variance times 1.1", Broken(DIFFUSION, generator=lambda *a: parts(*a, variance=1.1)), "forward-conditional"),
    ("diffusion: variance times 1.1, marginal", Broken(DIFFUSION, generator=lambda *a: parts(*a, variance=1.1)), "forward-marginal"),
    ("diffusion: step noise times 1.1", Broken(DIFFUSION, generator=lambda *a: WideDiffusion(*parts(*a).terms)), "step"),
    ("diffusion: transition of the flow", Broken(DIFFUSION, transition=lambda good, o, x, t, s, rng=None: FLOWS["data"].transition(o, x, t, s)), "transition-generator"),
    ("diffusion: transition forgets the state", Broken(DIFFUSION, transition=fresh_noise), "transition-generator"),
    ("diffusion: transition with the global generator", Broken(DIFFUSION, transition=global_noise), "seeds"),
    ("diffusion: variance undeclared", Broken(DIFFUSION, kinds=frozenset({"drift"})), "shapes"),
    *((f"chain, {name}: rate times 1.1", Broken(chain, generator=scaled_generator(1.1)), "forward-conditional") for name, chain in (("mask", MASK), ("uniform", UNIFORM), ("law", LAW))),
    ("chain, uniform: rate times 1.1, marginal", Broken(UNIFORM, generator=scaled_generator(1.1)), "forward-marginal"),
    ("chain, law: sharpened posterior", Broken(LAW, generator=sharpened), "affine"),
    ("chain, law: sharpened posterior, marginal", Broken(LAW, generator=sharpened), "forward-marginal"),
    ("chain, uniform: negative rates", Broken(UNIFORM, generator=negative_rates), "rates"),
    ("chain, uniform: steps jump too rarely", Broken(UNIFORM, generator=slow_jump), "step"),
    ("chain, mask: transition jumps too rarely", Broken(MASK, transition=rarely), "transition-path"),
    ("chain, mask: transition jumps too rarely, small steps", Broken(MASK, transition=rarely), "transition-generator"),
    ("chain, mask: the most likely token", Broken(MASK, transition=most_likely), "transition-generator"),
    ("chain, mask: t and s swapped", Broken(MASK, transition=swapped_ddim), "transition-path"),
    ("chain, mask: tokens become floats", Broken(MASK, transition=float_tokens), "shapes"),
    ("chain, mask: another loss", Broken(MASK, divergence=mse_of_tokens), "bregman"),
    ("chain, uniform: average without weights", Broken(UNIFORM, average=unweighted), "forward-marginal"),
    ("chain, mask: output without vocabulary", Broken(MASK, output_shape=(2,)), "shapes"),
    ("chain, uniform: natural without logarithm", Broken(UNIFORM, natural=lambda good, m: good.natural(m).exp()), "link"),
    ("chain, mask: source of tokens", Broken(MASK, path=BrokenPath(MASK.path, _source=wrong_token_source)), "source"),
    ("chain, uniform: source of one token too many", Broken(UNIFORM, path=BrokenPath(UNIFORM.path, _source=wrong_token_source)), "source"),
    ("chain, uniform: log_prob not normalised", Broken(UNIFORM, path=BrokenPath(UNIFORM.path, _log_prob=unnormalised)), "path-normalised"),
    ("chain, uniform: samples late", Broken(UNIFORM, path=BrokenPath(UNIFORM.path, _sample=late_sample)), "path-samples"),
    ("schedule: sigma(1) = cos(pi/2)", flow_with(BrokenSchedule(Cosine(), sigma=lambda t: torch.cos(math.pi / 2 * t.double()))), "data"),
    ("schedule: sigma(1) = cos(pi/2), tokens", ctmc_with(BrokenSchedule(Cosine(), sigma=lambda t: torch.cos(math.pi / 2 * t.double()))), "data"),
    ("schedule: ends with noise", flow_with(BrokenSchedule(sigma=lambda t: 1 - 0.999 * t.double())), "data"),
    ("schedule: starts with data", flow_with(BrokenSchedule(alpha=lambda t: 0.01 + 0.99 * t.double(), d_alpha=lambda t: torch.full_like(t, 0.99))), "source"),
    ("schedule: stale d_alpha", flow_with(BrokenSchedule(Polynomial(2), d_alpha=CondOT().d_alpha), "data"), "forward-conditional"),
    ("schedule: stale d_sigma", flow_with(BrokenSchedule(Cosine(), d_sigma=CondOT().d_sigma), "velocity"), "forward-conditional"),
    ("schedule: stale d_sigma, tokens", ctmc_with(BrokenSchedule(Cosine(), d_sigma=CondOT().d_sigma)), "forward-conditional"),
    ("schedule: stale d_sigma, transition", flow_with(BrokenSchedule(Cosine(), d_sigma=CondOT().d_sigma), "data"), "transition-generator"),
    ("schedule: kappa is not 1 - sigma", ctmc_with(BrokenSchedule(kappa=lambda t: t.double() ** 1.1)), "path-normalised"),
]  # fmt: skip


# Reversal rates, predictions, and paths of tokens

REVERSAL = gm.CTMC(Mixture((2,), vocab_size=3, source="uniform"), rates="reversal")
LAW_REVERSAL = gm.CTMC(Mixture((2,), vocab_size=3, source=torch.tensor([0.6, 0.3, 0.1])), rates="reversal")
CAVITY = gm.CTMC(Mixture((2,), vocab_size=3, source="uniform"), prediction="cavity")
CAVITY_REVERSAL = gm.CTMC(Mixture((2,), vocab_size=3, source="uniform"), prediction="cavity", rates="reversal")
SCORE = gm.CTMC(Mixture((2,), vocab_size=3, source=torch.tensor([0.6, 0.3, 0.1])), prediction="score", rates="reversal")
METRIC = Metric((2,), vocab_size=3, power=1.5)
CHAIN = torch.tensor([[-1.0, 0.5, 0.2], [0.7, -1.5, 0.8], [0.3, 1.0, -1.0]])
_P0 = torch.tensor([[0.5], [0.3], [0.2]], dtype=torch.float64)


def squared_table(t):
    kappa = (t**2).reshape(-1, 1, 1)
    return (1 - kappa) * _P0 + kappa * torch.eye(3, dtype=torch.float64)


def squared_slope(t):
    return 2 * t.reshape(-1, 1, 1) * (torch.eye(3, dtype=torch.float64) - _P0)


def reversal_by_hand(good, output, x, t, clock=1.0, noise_left=True, corrected=True):
    """w pi(v) + b p_0(v) (A + kappa (1 - pi(x))) / (A + kappa), with what can be left out."""
    schedule, source = good.path.schedule, good.path.source_prob(x)
    kappa, sigma = expand(schedule.kappa(t), x), expand(schedule.sigma(t), x)
    own = output.softmax(-1).gather(-1, x.unsqueeze(-1)).squeeze(-1)
    prior = source * (sigma if noise_left else 1)
    share = (prior + kappa * (1 - own)) / (prior + kappa) if corrected else 1.0
    back = clock * expand(schedule.backward_rate(t), x) * share * torch.ones_like(own)
    states = good.path.source_probs.log().expand(*x.shape, -1)
    return Jump(expand(schedule.rate(t), x).expand(x.shape), Categorical(output)) + Jump(back, Categorical(states))


def renewed_blindly(good, output, x, t, s, *, rng=None):
    """Noise is drawn anew as if no token that is kept were data."""
    touched = torch.rand(x.shape, dtype=torch.float64, generator=rng) < expand(good.path.schedule.jump_probability(t, s) / good.path.schedule.kappa(s), x)
    token = torch.where(touched, torch.multinomial(output.softmax(-1).flatten(0, 1), 1, generator=rng).view_as(x), x)
    again = touched & (torch.rand(x.shape, dtype=torch.float64, generator=rng) < expand(good.path.schedule.sigma(s), x))
    return torch.where(again, good.path.source(len(x), rng=rng), token)


def score_error(good, target, output, x, t):
    """Squared error of log scores."""
    return ((good.natural_at(target, x, t).clamp(min=-5) - output) ** 2).flatten(1).sum(-1)


class Follow(Broken):
    """A chain on a path of tokens whose conditional rates have some of their methods replaced."""

    def __init__(self, path, **changes):
        super().__init__(gm.CTMC(path))
        for name, change in changes.items():
            setattr(self.good._rates, name, functools.partial(change, self.good._rates))


def kinetic(rates, x, z, t, sign=1.0, by_destination=False):
    """[p'(v) - p(v) p'(x) / p(x)]_+, with a sign or the divisor changed."""
    p, d_p = (table.mT[torch.arange(len(t)), z] for table in (rates.path.table(t), rates.path.slope(t)))
    p_x, d_p_x = (law.gather(-1, x.unsqueeze(-1)) for law in (p, d_p))
    flow = (sign * (d_p * p_x - p * d_p_x)).clamp(min=0)
    return (flow / (p if by_destination else p_x)).nan_to_num(0.0, posinf=0.0).scatter(-1, x.unsqueeze(-1), 0.0)


def away(rates, x, z, t):
    distance = rates.path.distance
    return rates.path.law(z, t) * (distance[z] - distance[x, z].unsqueeze(-1)).clamp(min=0)


def other_distance(rates, x, z, t):
    distance = rates.path.distance.sqrt()
    return rates.path.law(z, t) * (distance[x, z].unsqueeze(-1) - distance[z]).clamp(min=0)


def unlike(rates, x, z, t):
    """The law at the present state, not at the destination."""
    distance = rates.path.distance
    return rates.path.law(z, t).gather(-1, x.unsqueeze(-1)) * (distance[x, z].unsqueeze(-1) - distance[z]).clamp(min=0)


def transposed(rates, x, z, t):
    law = rates.path.table(t).mT[torch.arange(len(t)), z]
    ratio = (law / law.gather(-1, x.unsqueeze(-1))).nan_to_num(0.0, posinf=0.0)
    return (rates.path.rate_matrix.T[x] * ratio).scatter(-1, x.unsqueeze(-1), 0.0)


def no_ratio(rates, x, z, t):
    return rates.path.rate_matrix[x].scatter(-1, x.unsqueeze(-1), 0.0) * torch.ones_like(t).unsqueeze(-1)


def ignores_x0(good, x1, t, x0, rng):
    return good._sample(x1, t, None, rng)


class FromZero(Broken):
    """A process that does not say from when on its prediction tells of the data."""

    def __init__(self, good):
        super().__init__(good)
        self.t_min = 0.0


def still(rates, t):
    return torch.ones_like(t)


MUTANTS += [
    ("flow, noise: starts where noise says nothing", FromZero(FLOWS["noise"]), "finite-gradients"),
    ("chain, cavity: posterior used as cavity", Broken(CAVITY, natural=lambda good, m: UNIFORM.natural(m)), "link"),
    ("chain, cavity: posterior used as cavity, marginal", Broken(CAVITY, natural=lambda good, m: UNIFORM.natural(m)), "forward-marginal"),
    ("chain, reversal: posterior used as cavity", Broken(REVERSAL, generator=lambda good, *a: CAVITY_REVERSAL.generator(*a)), "affine"),
    ("chain, reversal: posterior used as cavity, marginal", Broken(REVERSAL, generator=lambda good, *a: CAVITY_REVERSAL.generator(*a)), "forward-marginal"),
    ("chain, reversal: no 1 - kappa", Broken(LAW_REVERSAL, generator=lambda *a: reversal_by_hand(*a, noise_left=False)), "forward-conditional"),
    ("chain, reversal: noise at full rate", Broken(LAW_REVERSAL, generator=lambda *a: reversal_by_hand(*a, corrected=False)), "forward-conditional"),
    ("chain, reversal: noise times 1.5", Broken(LAW_REVERSAL, generator=lambda *a: reversal_by_hand(*a, clock=1.5)), "transition-generator"),
    ("chain, reversal: transition of the mixture rates", Broken(REVERSAL, transition=lambda good, *a, rng=None: UNIFORM.transition(*a, rng=rng)), "transition-generator"),
    ("chain, reversal: blind noise", Broken(REVERSAL, transition=renewed_blindly), "transition-path"),
    ("chain, reversal: a transition that takes the posterior for the cavity", Broken(REVERSAL, transition=lambda good, *a, rng=None: CAVITY_REVERSAL.transition(*a, rng=rng)), "transition-generator"),
    ("chain, score: posterior used as score", Broken(SCORE, natural=lambda good, m: LAW.natural(m)), "link"),
    ("chain, score: rate times 1.1", Broken(SCORE, generator=scaled_generator(1.1)), "forward-marginal"),
    ("chain, score: squared error of logarithms", Broken(SCORE, divergence=score_error), "bregman"),
    ("discrete: wrong sign", Follow(Discrete((2,), squared_table, squared_slope), jumps=lambda *a: kinetic(*a, sign=-1.0)), "forward-conditional"),
    ("discrete: divided by the destination", Follow(Discrete((2,), squared_table, squared_slope), jumps=lambda *a: kinetic(*a, by_destination=True)), "forward-conditional"),
    ("discrete: rate times 1.1", Follow(Discrete((2,), squared_table, squared_slope), clock=lambda rates, t: 1.1 * torch.ones_like(t)), "forward-marginal"),
    ("metric: no beta'", Follow(METRIC, clock=still), "forward-conditional"),
    ("metric: beta in place of beta'", Follow(METRIC, clock=lambda rates, t: rates.path.beta(t)), "forward-conditional"),
    ("metric: away from the data", Follow(METRIC, jumps=away), "forward-conditional"),
    ("metric: another distance in the rates", Follow(METRIC, jumps=other_distance), "forward-conditional"),
    ("metric: the law at the present token", Follow(METRIC, jumps=unlike), "forward-conditional"),
    ("metric: samples late", Broken(gm.CTMC(METRIC), path=BrokenPath(METRIC, _sample=late_sample)), "path-samples"),
    ("metric: samples deaf to x0", Broken(gm.CTMC(METRIC), path=BrokenPath(METRIC, _sample=ignores_x0)), "source"),
    ("noising: transposed rates", Follow(Noising((2,), CHAIN), jumps=transposed), "forward-conditional"),
    ("noising: rates that are not reversed", Follow(Noising((2,), CHAIN), jumps=no_ratio), "forward-conditional"),
    ("noising: no clock", Follow(Noising((2,), CHAIN), clock=still), "forward-conditional"),
    ("noising: half a transition", Broken(gm.CTMC(Noising((2,), CHAIN)), transition=half_way), "transition-path"),
]  # fmt: skip


# Blocks

BLOCKS = gm.processes.BlockDiffusion(Blocks(3, vocab_size=3, block=2))


def whole_sequence(good, output, x, t):
    masked = good.masked(x)
    return Jump(expand(good.path.schedule.rate(t), x) * masked, Categorical(output))


def own_rate(good, output, x, t):
    return Jump(expand(good.path.schedule.rate(t), x) * good.path.open(x), Categorical(output))


def not_shared(good, output, x, t):
    missing = good.masked(x).sum(-1, keepdim=True)
    return Jump(missing * expand(good.path.schedule.rate(t), x) * good.path.open(x), Categorical(output))


def any_masks(good, output, x, t, s, *, rng=None):
    return gm.CTMC(Mixture((3,), vocab_size=3)).transition(output, x, t, s, rng=rng)


def in_order(good, x1, t, x0, rng):
    count = (torch.rand(x1.shape, dtype=torch.float64, generator=rng) < expand(good.schedule.kappa(t), x1)).sum(-1, keepdim=True)
    return torch.where(torch.arange(x1.shape[1]) < count, x1, good.space.mask_id)


MUTANTS += [
    ("blocks: any mask jumps", Broken(BLOCKS, generator=whole_sequence), "forward-conditional"),
    ("blocks: masks of later blocks do not lend their rate", Broken(BLOCKS, generator=own_rate), "forward-conditional"),
    ("blocks: every mask of the block at the rate of all", Broken(BLOCKS, generator=not_shared), "forward-marginal"),
    ("blocks: a transition in any order", Broken(BLOCKS, transition=any_masks), "transition-path"),
    ("blocks: samples from left to right inside a block", Broken(BLOCKS, path=BrokenPath(BLOCKS.path, _sample=in_order)), "path-samples"),
]


# Manifolds

SPHERE, TORUS, ROTATIONS = (gm.Flow(Geodesic(space)) for space in (Sphere(2), Torus(2), SO3()))


def data_target(good, x, t, x1, *, x0=None):
    return x1


def to_the_mean(good, output, x, t):
    """Heads for the mean of the data points, brought back to the sphere: the trap of a target that is a point."""
    space = good.space
    return Drift(expand(good.path.schedule.rate(t), x) * space.log(x, space.nearest(output)), space)


def through_the_ball(good, x, t, x1, *, x0=None):
    """The straight way to x1, which is not tangent and has no wrap."""
    return expand(good.path.schedule.rate(t), x) * (x1 - x)


def unprojected(good, output, x, t):
    return Drift(output, good.space)


def off_the_manifold(good, output, x, t):
    return Drift(good.predict(output, x, t, "velocity"))


def from_the_other_side(good, x, t, x1, *, x0=None):
    return -expand(good.path.schedule.rate(t), x) * good.space.log(x1, x)


def space_velocity(good, x, t, x1, *, x0=None):
    """The body velocity, applied as if it were one of the space."""
    return x.mT @ good.target(x, t, x1) @ x


def without_wrap(good, x1, t, x0, rng):
    return x1 + expand(good.schedule.sigma(t), x1) * (good.space.random(len(x1), rng=rng, dtype=x1.dtype) - x1)


def exponent(of_way, of_stretch):
    """A density with wrong exponents of 1 - kappa and of the stretch of volumes."""

    def changed(good, x, t, x1):
        way, v = good.schedule.sigma(t), good.space.log(x1.double(), x.double())
        return good._log_prob(x, t, x1) - of_way * torch.log(way) - of_stretch * good.space.log_stretch(v)

    return changed


def polar_source(good, n, rng):
    """Latitude and longitude uniform: too many points near the poles."""
    latitude, longitude = ((torch.rand(n, generator=rng) - 0.5) * math.pi * k for k in (1, 2))
    return torch.stack([latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()], -1)


def tangent_line(good, output, x, t, s, *, rng=None):
    """A straight step, brought back to the sphere by its nearest point."""
    share = good.path.schedule.jump_probability(t, s) / good.path.schedule.rate(t)
    return good.space.nearest(x + expand(share, x) * output)


MUTANTS += [
    ("sphere: x1 as the target", Broken(SPHERE, target=data_target, generator=to_the_mean), "affine"),
    ("sphere: x1 as the target, marginal", Broken(SPHERE, target=data_target, generator=to_the_mean), "forward-marginal"),
    ("sphere: velocity not tangent", Broken(SPHERE, target=through_the_ball, generator=unprojected), "forward-conditional"),
    ("sphere: straight way, projected", Broken(SPHERE, target=through_the_ball), "forward-conditional"),
    ("sphere: velocity of another tangent space", Broken(SPHERE, target=from_the_other_side), "forward-conditional"),
    ("sphere: steps leave the manifold", Broken(SPHERE, generator=off_the_manifold), "shapes"),
    ("sphere: velocity times 1.1, marginal", Broken(SPHERE, generator=scaled_generator(1.1)), "forward-marginal"),
    ("sphere: wrong exponent of 1 - kappa", Broken(SPHERE, path=BrokenPath(SPHERE.path, _log_prob=exponent(-1, 0))), "path-samples"),
    ("sphere: wrong exponent of the sine", Broken(SPHERE, path=BrokenPath(SPHERE.path, _log_prob=exponent(0, 1))), "path-samples"),
    ("sphere: wrong exponent of the sine, marginal", Broken(SPHERE, path=BrokenPath(SPHERE.path, _log_prob=exponent(0, 1))), "forward-marginal"),
    ("sphere: source uniform in angles", Broken(SPHERE, path=BrokenPath(SPHERE.path, _source=polar_source)), "source"),
    ("sphere: transition along a straight line", Broken(SPHERE, transition=tangent_line), "transition-path"),
    ("sphere: half a transition", Broken(SPHERE, transition=half_way), "transition-generator"),
    ("sphere: loss weighted by x1", Broken(SPHERE, divergence=weighted_by_target), "bregman"),
    ("torus: target without wrap", Broken(TORUS, target=through_the_ball), "forward-conditional"),
    ("torus: samples without wrap", Broken(TORUS, path=BrokenPath(TORUS.path, _sample=without_wrap)), "path-samples"),
    ("torus: wrong exponent of 1 - kappa", Broken(TORUS, path=BrokenPath(TORUS.path, _log_prob=exponent(1, 0))), "path-samples"),
    ("rotations: body velocity from the wrong side", Broken(ROTATIONS, target=space_velocity), "forward-conditional"),
    ("rotations: wrong exponent of 1 - kappa", Broken(ROTATIONS, path=BrokenPath(ROTATIONS.path, _log_prob=exponent(-1, 0))), "path-samples"),
    ("schedule: stale d_sigma, sphere", gm.Flow(Geodesic(Sphere(2), BrokenSchedule(Cosine(), d_sigma=CondOT().d_sigma))), "forward-conditional"),
]  # fmt: skip


# Jumps on R^d and correctors.

JUMPS = gm.JumpProcess(Gaussian((1,)), bins=torch.tensor([-1.0, 0.2, 1.0]))
REAL_MIXTURE = gm.JumpProcess(RealMixture(Grid((1,), [-1.0, 0.2, 1.0])))
LANGEVIN = gm.Langevin(Gaussian((1,)), noise=2.0)
CORRECTOR = gm.CTMC(Mixture((2,), vocab_size=3, source="uniform"), rates="corrector")
FLOW_AND_JUMPS = gm.Superposition([gm.Flow(JUMPS.path), JUMPS], weights=[0.5, 0.5])


def averaged_apart(good, output, x, t):
    """The mean rate and the mean destination, each by the posterior alone."""
    jump = good.generator(output, x, t)
    return Jump(jump.intensity, Flux(output.double(), jump.destination.centre, jump.destination.sigma, jump.destination.tilt))


def changed_flux(**change):
    def generator(good, output, x, t):
        jump = good.generator(output, x, t)
        parts = {name: getattr(jump.destination, name) for name in ("logits", "centre", "sigma", "tilt")}
        return Jump(jump.intensity, Flux(**{name: change.get(name, lambda v: v)(value) for name, value in parts.items()}))

    return generator


def lands_on_the_levels(good, output, x, t):
    """A jump straight to the data, at the rate of a jump of the Gaussian path."""
    jump = good.generator(output, x, t)
    return Jump(jump.intensity, gm.destinations.Levels(jump.destination.logits, good.grid.levels))


def lands_anywhere(good, output, x, t):
    """Every level alike."""
    jump = good.generator(output, x, t)
    return Jump(jump.intensity, gm.destinations.Levels(torch.zeros_like(output), jump.destination.values))


def one_way(good, output, x, t):
    """Forwards and not back."""
    return gm.CTMC(good.path).generator(output, x, t)


def only_noise(good, output, x, t):
    return Brownian(Sum(*good.generator(output, x, t).terms).brownian.variance)


def full_drift(good, output, x, t):
    """The jump is weighted, the drift is not."""
    total = good.generator(output, x, t)
    return Drift(2 * total.drift.velocity) + total.jump


class Correcting(Broken):
    """A broken corrector is one that claims to correct."""

    stationary = True


MUTANTS += [
    ("jump: rate and destination averaged apart", Broken(JUMPS, generator=averaged_apart), "forward-marginal"),
    ("jump: rate and destination averaged apart, affine", Broken(JUMPS, generator=averaged_apart), "affine"),
    ("jump: rate times 1.1", Broken(JUMPS, generator=scaled_generator(1.1)), "forward-conditional"),
    ("jump: wrong sign of the tilt", Broken(JUMPS, generator=changed_flux(tilt=torch.neg)), "forward-conditional"),
    ("jump: lands around 0", Broken(JUMPS, generator=changed_flux(centre=torch.zeros_like)), "forward-conditional"),
    ("jump: lands too far", Broken(JUMPS, generator=changed_flux(sigma=lambda v: 1.1 * v)), "forward-conditional"),
    ("jump: lands on the data", Broken(JUMPS, generator=lands_on_the_levels), "forward-conditional"),
    ("jump: lands on the data, marginal", Broken(JUMPS, generator=lands_on_the_levels), "forward-marginal"),
    ("real mixture: lands on any level", Broken(REAL_MIXTURE, generator=lands_anywhere), "forward-marginal"),
    ("real mixture: rate times 1.1", Broken(REAL_MIXTURE, generator=scaled_generator(1.1)), "forward-conditional"),
    ("real mixture: half a transition", Broken(REAL_MIXTURE, transition=lambda good, output, x, t, s, rng=None: good.transition(output, x, t, (t + s) / 2, rng=rng)), "transition-generator"),
    ("corrector: forwards and not back", Correcting(CORRECTOR, generator=one_way), "forward-conditional"),
    ("corrector: Langevin without a score", Correcting(LANGEVIN, generator=only_noise), "forward-conditional"),
    ("corrector: Langevin without a score, marginal", Correcting(LANGEVIN, generator=only_noise), "forward-marginal"),
    ("superposition: the jump is weighted, the drift is not", Broken(FLOW_AND_JUMPS, generator=full_drift), "forward-conditional"),
]  # fmt: skip


# Couplings, densities that are not normalised, last steps

COUPLED = gm.Flow(Gaussian((2,), coupling=OptimalTransport()))
SPHERE_COUPLED = gm.Flow(Geodesic(Sphere(2), coupling=OptimalTransport()))


class AnyCoupling(Coupling):
    """A coupling that does as it is told."""

    def __init__(self, pair):
        self.rule = pair

    def pair(self, x0, x1, space, condition, *, rng=None):
        return self.rule(x0, x1, space, rng)


def across_conditions(x0, x1, space, rng):
    return OptimalTransport().pair(x0, x1, space, {}, rng=rng)


def nearest_noise(x0, x1, space, rng):
    """Every data point takes the noise that is nearest, and what is far from all is lost."""
    return x0[space.squared_distances(x1, x0).argmin(1)]


def drawn_to_the_data(x0, x1, space, rng):
    return 0.8 * x0 + 0.6 * x1


def with_constant(constant):
    return lambda good, x, t, x1: good._log_prob(x, t, x1) + constant


def halved_constant(good, x, t, x1):
    """A normal density without its factor 2."""
    return good._log_prob(x, t, x1) + 0.5 * good.space.size * math.log(2)


def stays(good, output, x, t, *, rng=None):
    return x


def tokens_most_likely(good, output, x, t, *, rng=None):
    return torch.where(good.path.is_noise(x), output.argmax(-1), x)


def tokens_colder(good, output, x, t, *, rng=None):
    return good.finish(output / 0.8, x, t, rng=rng)


def one_token_drawn(good, output, x, t, *, rng=None):
    """Noise for the first token alone; the others are the most likely ones."""
    drawn, likely = good.finish(output, x, t, rng=rng), tokens_most_likely(good, output, x, t)
    return torch.cat([drawn[:, :1], likely[:, 1:]], 1)


def tokens_in_step(good, output, x, t, *, rng=None):
    """One uniform number for all tokens of a state: each is drawn from its law, but not by itself."""
    uniform = torch.rand(len(x), 1, 1, dtype=torch.float64, generator=rng)
    token = (output.softmax(-1).double().cumsum(-1) < uniform).sum(-1).clamp(max=output.shape[-1] - 1)
    return torch.where(good.path.is_noise(x), token, x)


def prior_again(good, output, x, t, *, rng=None):
    """One token in twenty ends as noise."""
    end = good.finish(output, x, t, rng=rng)
    noise = draw_categorical(good.path.source_probs[: output.shape[-1]].log().expand(x.numel(), -1), rng=rng).view_as(x)
    return torch.where(torch.rand(x.shape, generator=rng) < 0.05, noise, end)


def not_quite(good, output, x, t, *, rng=None):
    return x + 0.999 * (good.finish(output, x, t, rng=rng) - x)


def with_noise_left(good, output, x, t, *, rng=None):
    return good.finish(output, x, t, rng=rng) + 0.01 * torch.randn(x.shape, dtype=x.dtype, generator=rng)


MUTANTS += [
    ("coupling: across conditions", Broken(COUPLED, path=BrokenPath(COUPLED.path, coupling=AnyCoupling(across_conditions))), "coupling"),
    ("coupling: the nearest noise", Broken(COUPLED, path=BrokenPath(COUPLED.path, coupling=AnyCoupling(nearest_noise))), "coupling"),
    ("coupling: noise drawn to the data", Broken(COUPLED, path=BrokenPath(COUPLED.path, coupling=AnyCoupling(drawn_to_the_data))), "coupling"),
    ("coupling, sphere: across conditions", Broken(SPHERE_COUPLED, path=BrokenPath(SPHERE_COUPLED.path, coupling=AnyCoupling(across_conditions))), "coupling"),
    ("coupling: velocity times 1.1", Broken(COUPLED, generator=scaled_generator(1.1)), "forward-conditional"),
    ("coupling: half a transition", Broken(COUPLED, transition=half_way), "finish"),
    ("density, flow: 2 pi is pi", Broken(FLOW, path=BrokenPath(FLOW.path, _log_prob=halved_constant)), "path-normalised"),
    ("density, flow: 5 % too much", Broken(FLOW, path=BrokenPath(FLOW.path, _log_prob=with_constant(math.log(1.05)))), "path-normalised"),
    ("density, flow: a million times too much", Broken(FLOW, path=BrokenPath(FLOW.path, _log_prob=with_constant(math.log(1e6)))), "path-normalised"),
    ("density, sphere: no volume", Broken(SPHERE, path=BrokenPath(SPHERE.path, _log_prob=with_constant(Sphere(2).log_volume))), "path-normalised"),
    ("density, sphere: wrong exponent of the sine", Broken(SPHERE, path=BrokenPath(SPHERE.path, _log_prob=exponent(0, 1))), "path-normalised"),
    ("density, torus: one angle counted", Broken(TORUS, path=BrokenPath(TORUS.path, _log_prob=with_constant(math.log(2 * math.pi)))), "path-normalised"),
    ("density, rotations: wrong exponent of the angle", Broken(ROTATIONS, path=BrokenPath(ROTATIONS.path, _log_prob=exponent(0, 1))), "path-normalised"),
    ("density, rotations: half the exponent of the angle", Broken(ROTATIONS, path=BrokenPath(ROTATIONS.path, _log_prob=exponent(0, 0.5))), "path-normalised"),
    ("density, rotations: volume 8 pi^2", Broken(ROTATIONS, path=BrokenPath(ROTATIONS.path, _log_prob=with_constant(-math.log(8 * math.pi**2)))), "path-normalised"),
    ("finish, flow: stays", Broken(FLOW, finish=stays), "finish"),
    ("finish, flow: a step too short", Broken(FLOWS["data"], finish=not_quite), "finish"),
    ("finish, diffusion: noise left", Broken(DIFFUSION, finish=with_noise_left), "finish"),
    ("finish, sphere: stays", Broken(SPHERE, finish=stays), "finish"),
    ("finish, mask: stays", Broken(MASK, finish=stays), "finish"),
    ("finish, uniform: noise again", Broken(UNIFORM, finish=prior_again), "finish"),
    ("finish, mask: the most likely token", Broken(MASK, finish=tokens_most_likely), "finish-mean"),
    ("finish, metric: the most likely token", Broken(gm.CTMC(METRIC), finish=tokens_most_likely), "finish-mean"),
    ("finish, law: colder", Broken(LAW, finish=tokens_colder), "finish-mean"),
    ("finish, metric: one token is drawn", Broken(gm.CTMC(METRIC), finish=one_token_drawn), "finish-mean"),
    ("finish, uniform: tokens in step", Broken(UNIFORM, finish=tokens_in_step), "finish-mean"),
    ("finish, flow: noise left", Broken(FLOW, finish=with_noise_left), "finish"),
]  # fmt: skip
