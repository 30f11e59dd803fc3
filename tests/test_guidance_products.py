"""A classifier of noisy states, for tokens and for products: the guided generator is that of the conditional law, by enumeration."""

import itertools
import math

import pytest
import torch

import genmatch as gm
from genmatch.processes import tokens
from genmatch.tensors import leaves, tree_map
from tests.toys import PREDICTIONS, SOURCES, full, seeded

F64 = torch.float64
TIMES = (0.03, 0.3, 0.6, 0.95)
cosine = gm.schedules.Cosine()


def tokens_of(positions, vocab, source="mask", rates=None, prediction="posterior", schedule=cosine):
    return gm.CTMC(gm.paths.Mixture((positions,), vocab, source=source, schedule=schedule), prediction, rates)


def coordinates(states):
    """The tokens of all parts side by side, (N, coordinates)."""
    return torch.cat([leaf.flatten(1) for leaf in leaves(states)], -1)


class World:
    """A finite process with a law of the data and a class that depends on all of it: everything by enumeration."""

    def __init__(self, process):
        self.process, self.space = process, process.space
        self.data = process.data_space.enumerate()
        n = gm.tensors.batch_size(self.data)
        self.law = torch.rand(n, dtype=F64, generator=seeded(1)).pow(3) + 0.01
        self.law /= self.law.sum()
        self.chance = torch.rand(n, dtype=F64, generator=seeded(2)).pow(2).clamp(0.02, 0.98)
        self.given = self.law * self.chance / (self.law * self.chance).sum()

    def likelihood(self, x, t):
        """p_t(x given x1), (N, data)."""
        n, m = gm.tensors.batch_size(x), len(self.law)
        many, data = tree_map(lambda v: v.repeat_interleave(m, 0), x), tree_map(lambda v: v.repeat(n, *[1] * (v.dim() - 1)), self.data)
        return self.process.path.log_prob(many, t.repeat_interleave(m).double(), data).exp().view(n, m)

    def log_prob(self, x, t):
        """log p_t(c given x)."""
        pairs = self.likelihood(x, t) * self.law
        return (pairs @ self.chance / pairs.sum(-1)).log()

    def model(self, law):
        return gm.oracle(self.process, self.data, law)

    def guided(self, scale=1.0, log_prob=None):
        return gm.guidance.classifier(self.process, self.model(self.law), log_prob or self.log_prob, scale, size=100)

    def rates(self, model, time, process=None):
        states = self.space.enumerate()
        t = full(time, gm.tensors.batch_size(states))
        return (process or self.process).generator(model(states, t), states, t).dense(self.space)

    def reversal(self, law, time, schedules, sources):
        """Rates R(y given x) = b p_0(x_j) p_t(y) / p_t(x) of the time reversal, y with one coordinate changed, from nothing but p_t."""
        states = self.space.enumerate()
        flat, t = coordinates(states), full(time, gm.tensors.batch_size(states))
        p = self.likelihood(states, t) @ law
        differ = flat.unsqueeze(1) != flat.unsqueeze(0)  # from y, to x
        rates = torch.zeros(len(p), len(p), dtype=F64)
        for j, (schedule, source) in enumerate(zip(schedules, sources, strict=True)):
            one = differ[..., j] & (differ.sum(-1) == 1)
            back = schedule.backward_rate(t) * source[flat[:, j]]
            rates += torch.where(one, back * p.unsqueeze(1) / p, 0)
        return rates - torch.diag(rates.sum(0))


def gap(found, wanted):
    """The largest error, relative to the rate itself, of all that is not zero; what is zero must be so too, up to rounding of the largest."""
    size = wanted.abs().max()
    return float(((found - wanted).abs() / wanted.abs().clamp(min=1e-6 * size)).max())


UNIFORM, MASK = torch.full((3,), 1 / 3, dtype=F64), torch.tensor([0.0, 0.0, 1.0], dtype=F64)
PAIR = World(gm.Product(a=tokens_of(2, 2), b=tokens_of(1, 3, "uniform", "reversal", schedule=gm.schedules.CondOT())))
NESTED = World(
    gm.Product(
        outer=gm.Product(a=tokens_of(1, 2), inner=gm.Product(b=tokens_of(1, 3, "uniform", "reversal", "score", gm.schedules.CondOT()))),
        c=gm.Superposition([tokens_of(1, 2), tokens_of(1, 2, prediction="cavity")], [0.3, 0.7]),
    )
)
MIXED = World(gm.Product(a=tokens_of(1, 3, "uniform", prediction="cavity"), b=tokens_of(1, 3, torch.tensor([0.5, 0.2, 0.3])), c=tokens_of(1, 2)))
KNOWN = {
    "pair": (PAIR, (cosine, cosine, gm.schedules.CondOT()), (MASK, MASK, UNIFORM)),
    "nested": (NESTED, (cosine, gm.schedules.CondOT(), cosine), (MASK, UNIFORM, MASK)),
}


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("name", KNOWN)
def test_the_guided_rates_of_a_finite_product_are_those_of_the_conditional_law(name, time):
    world, schedules, sources = KNOWN[name]
    wanted = world.reversal(world.given, time, schedules, sources)
    assert gap(world.rates(world.guided(), time), wanted) < 1e-9
    assert gap(world.rates(world.model(world.law), time), wanted) > 0.1


@pytest.mark.parametrize("time", TIMES)
def test_mixture_rates_of_any_source_are_guided_exactly_too(time):
    """Doob's transform would miss their law; the posterior of the condition does not."""
    wanted = MIXED.rates(MIXED.model(MIXED.given), time)
    assert gap(MIXED.rates(MIXED.guided(), time), wanted) < 1e-9


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("prediction", ["posterior", "cavity", "score"])
def test_tokens_alone_are_guided_exactly_for_every_source_prediction_and_rates(source, prediction):
    law = SOURCES[source]
    for rates, time in itertools.product(("mixture", "reversal"), (0.1, 0.7)):
        world = World(tokens_of(3, 4, law, rates, prediction))
        assert gap(world.rates(world.guided(), time), world.rates(world.model(world.given), time)) < 1e-9


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_weight_takes_the_power_of_the_ratios(scale):
    """The rates of a reversal are multiplied by them; a mask keeps its clock, and its posterior is multiplied."""
    world, time = World(PAIR.process), 0.6
    # Of a class that says less, so that the powers are those of a law.
    world.chance = 0.5 + (world.chance - 0.5) / 10
    states = world.space.enumerate()
    h = world.log_prob(states, full(time, gm.tensors.batch_size(states)))
    ratios = (h.unsqueeze(1) - h).exp() ** scale
    free, found = world.rates(world.model(world.law), time), world.rates(world.guided(scale), time)
    flat = coordinates(states)
    differ = flat.unsqueeze(1) != flat.unsqueeze(0)
    for j in range(3):
        one = differ[..., j] & (differ.sum(-1) == 1)
        wanted = torch.where(one, free * ratios, 0)
        if j < 2:
            clock = torch.where(one, free, 0).sum(0)
            wanted = torch.where(clock > 0, wanted * clock / wanted.sum(0).clamp(min=1e-300), 0)
        assert gap(torch.where(one, found, 0), wanted) < 1e-9


# What must not pass


class Swapped(gm.Product):
    """The rows of the other parts are not those of the neighbours."""

    def tilted(self, output, x, t, log_weight):
        def of(name):
            return lambda value, rows: log_weight({**tree_map(lambda v: v[torch.arange(len(rows)) % len(v)], x), name: value}, rows)

        return {name: part.tilted(output[name], x[name], t, of(name)) for name, part in self.parts.items()}


class Only(gm.Product):
    """One part alone is guided."""

    def tilted(self, output, x, t, log_weight):
        return {**output, "a": super().tilted(output, x, t, log_weight)["a"]}


def all_at_once(f, x, values, wanted, size=4096):
    """Every token of a part becomes the new one."""

    def shared(there, rows):
        place = (there != x[rows]).long().argmax(-1, keepdim=True)
        return f(there.gather(-1, place).expand(there.shape).contiguous(), rows)

    return gm.calculus.neighbours(shared, x, values, wanted, size)


def with_another_classifier(change):
    return lambda world: world.guided(log_prob=lambda x, t: change(x, t))


def with_another_product(kind):
    return lambda world: gm.guidance.classifier(kind(**world.process.parts), world.model(world.law), world.log_prob)


MUTANTS = {
    "sign": with_another_classifier(lambda x, t: -PAIR.log_prob(x, t)),
    "time": with_another_classifier(lambda x, t: PAIR.log_prob(x, t**2)),
    "blind part": with_another_classifier(lambda x, t: PAIR.log_prob({**x, "b": x["b"][:1].expand(x["b"].shape)}, t)),
    "rows of others": with_another_product(Swapped),
    "one part": with_another_product(Only),
    "shared coordinates": World.guided,
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_product_is_caught(name, monkeypatch):
    world, schedules, sources = KNOWN["pair"]
    if name == "shared coordinates":
        monkeypatch.setattr(tokens, "neighbours", all_at_once)
    wanted = world.reversal(world.given, 0.6, schedules, sources)
    assert gap(world.rates(MUTANTS[name](world), 0.6), wanted) > 1e-2


# Tokens beside vectors


class Joint:
    """Two tokens and a place on the line that is a mixture of normals given them: p(z, k), with N(m_k, s_k^2)."""

    means, stds = torch.tensor([-1.0, 0.4, 1.2], dtype=F64), torch.tensor([0.3, 0.25, 0.5], dtype=F64)
    data = torch.tensor(list(itertools.product(range(2), repeat=2)))

    def __init__(self, place, word):
        self.process = gm.Product(place=place, word=word)
        self.schedule = place.path.schedule
        self.law = torch.rand(4, 3, dtype=F64, generator=seeded(4)).pow(2) + 0.02
        self.law /= self.law.sum()
        self.chance = torch.rand(4, 3, dtype=F64, generator=seeded(5)).clamp(0.05, 0.95)
        self.given = self.law * self.chance / (self.law * self.chance).sum()

    def pairs(self, x, t, law):
        """log p_t(x, z, k), (B, 4, 3), and what the place's normals are at that time."""
        alpha, sigma = (c(t.double()).reshape(-1, 1) for c in (self.schedule.alpha, self.schedule.sigma))
        variance, distance = alpha**2 * self.stds**2 + sigma**2, x["place"] - alpha * self.means
        normals = -0.5 * distance**2 / variance - 0.5 * torch.log(2 * math.pi * variance)
        n = len(t)
        words = self.process.parts["word"].path.log_prob(x["word"].repeat_interleave(4, 0), t.double().repeat_interleave(4), self.data.repeat(n, 1))
        return law.log() + words.view(n, 4, 1) + normals.unsqueeze(1), (alpha, variance, distance)

    def log_prob(self, x, t):
        pairs, _ = self.pairs(x, t, self.law)
        return (pairs + self.chance.log()).flatten(1).logsumexp(-1) - pairs.flatten(1).logsumexp(-1)

    def model(self, law):
        def model(x, t):
            pairs, (alpha, variance, distance) = self.pairs(x, t, law)
            weights = pairs.flatten(1).softmax(-1).view(pairs.shape)
            mean = (weights.sum(1) * (self.means + alpha * self.stds**2 * distance / variance)).sum(-1, keepdim=True)
            posterior = torch.nn.functional.one_hot(self.data, 2).double()
            natural = self.process.parts["word"].natural_at(torch.einsum("bz,zjv->bjv", weights.sum(-1), posterior), x["word"], t)
            place = self.process.parts["place"]
            return {"place": gm.Flow(place.path, "data").predict(mean, x["place"], t, place.prediction), "word": natural}

        return model

    def generator(self, model, x, t):
        parts = self.process.generator(model(x, t), x, t).parts
        return gm.generators.Sum(*parts["place"].terms).drift.velocity, parts["word"].rates(x["word"], self.process.space.parts["word"].num_states)


def places(process):
    words = process.space.parts["word"].enumerate()
    return lambda time: {
        "place": torch.linspace(-1.5, 1.8, 7, dtype=F64).repeat(len(words)).unsqueeze(-1),
        "word": words.repeat_interleave(7, 0),
    }


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(("source", "rates"), [("mask", "mixture"), ("uniform", "reversal"), ("uniform", "mixture")])
def test_tokens_beside_vectors_get_the_generator_of_the_conditional_law(prediction, source, rates, time):
    line = gm.paths.Gaussian((1,), schedule=gm.schedules.CondOT(), dtype=F64)
    kinds = [gm.Flow(line, prediction), gm.Diffusion(line, noise=0.7, prediction=prediction)]
    for place in kinds:
        joint = Joint(place, tokens_of(2, 2, source, rates))
        x = places(joint.process)(time)
        t = full(time, len(x["place"]))
        guided = gm.guidance.classifier(joint.process, joint.model(joint.law), joint.log_prob)
        free, found, wanted = (joint.generator(model, x, t) for model in (joint.model(joint.law), guided, joint.model(joint.given)))
        for i in range(2):
            assert gap(found[i], wanted[i]) < 1e-9
            assert gap(free[i], wanted[i]) > 1e-4
        wrong = gm.guidance.classifier(joint.process, joint.model(joint.law), lambda x, t, joint=joint: -joint.log_prob(x, t))
        assert min(map(gap, joint.generator(wrong, x, t), wanted)) > 1e-4


def test_jumps_onto_levels_and_superpositions_are_parts_like_any():
    levels = gm.spaces.Grid((2,), torch.tensor([-1.0, 0.0, 2.0], dtype=F64), F64)
    line = gm.paths.Gaussian((1,), dtype=F64)
    process = gm.Product(
        grey=gm.JumpProcess(gm.paths.RealMixture(levels)),
        both=gm.Product(place=gm.Superposition([gm.Flow(line), gm.Diffusion(line, prediction="score")], [0.5, 0.5]), word=tokens_of(1, 2)),
    )
    data = {
        "grey": levels.levels[torch.randint(3, (12, 2), generator=seeded())],
        "both": {"place": torch.randn(12, 1, dtype=F64, generator=seeded()), "word": torch.randint(2, (12, 1), generator=seeded(3))},
    }
    law, chance = torch.rand(12, dtype=F64, generator=seeded(1)) + 0.1, torch.rand(12, dtype=F64, generator=seeded(2)) + 0.05
    free, given = gm.oracle(process, data, law), gm.oracle(process, data, law * chance)
    guided = gm.guidance.classifier(process, free, LogChance(process, data, law, chance))
    for time in (0.05, 0.4):
        t = full(time, 48)
        x = process.path.sample(tree_map(lambda v: v.repeat(4, *[1] * (v.dim() - 1)), data), t, rng=seeded())
        for found, wanted, plain in zip(*(leaves(process.mean_at(model(x, t), x, t)) for model in (guided, given, free)), strict=True):
            assert gap(found, wanted) < 1e-9
            assert gap(plain, wanted) > 1e-3


class LogChance:
    """log p_t(c given x) of data with weights, differentiable in what is a vector."""

    def __init__(self, process, data, law, chance):
        self.process, self.data, self.law, self.chance = process, data, law, chance

    def __call__(self, x, t):
        n, m = len(t), len(self.law)
        many, data = tree_map(lambda v: v.repeat_interleave(m, 0), x), tree_map(lambda v: v.repeat(n, *[1] * (v.dim() - 1)), self.data)
        pairs = self.process.path.log_prob(many, t.double().repeat_interleave(m), data).view(n, m) + self.law.log()
        return (pairs + self.chance.log()).logsumexp(-1) - pairs.logsumexp(-1)


# What a user does


def test_samples_of_a_batch_are_each_of_the_class_that_was_asked_for():
    """The condition goes with its row, through the neighbours and the parts; a class that the data decide is always hit."""
    process = gm.Product(place=gm.Flow(gm.paths.Gaussian((1,), dtype=F64)), text=gm.Product(word=tokens_of(2, 3), end=tokens_of(1, 2, "uniform")))
    data = {
        "place": torch.tensor([[-2.0], [0.0], [2.0], [2.5]], dtype=F64),
        "text": {"word": torch.tensor([[0, 1], [2, 2], [1, 0], [1, 2]]), "end": torch.tensor([[0], [1], [0], [1]])},
    }
    label, law = torch.tensor([0, 1, 2, 2]), torch.full((4,), 0.25, dtype=F64)

    def log_prob(x, t, label_wanted):
        table = torch.where(label == label_wanted.unsqueeze(-1), 0.0, -torch.inf).double()
        return LogChance(process, data, law, table.exp())(x, t)

    free = gm.oracle(process, data, law)
    guided = gm.guidance.classifier(process, free, log_prob)
    wanted = torch.arange(60) % 3
    for solver in gm.solvers.available(process):
        x = gm.sample(process, guided, 60, solver=solver, steps=32, seed=0, condition={"label_wanted": wanted})
        nearest = (x["place"] - data["place"].T).abs().argmin(-1)
        assert torch.equal(label[nearest], wanted)
        assert torch.equal(x["text"]["word"][wanted < 2], data["text"]["word"][wanted[wanted < 2]])
    held = gm.sample(process, guided, 60, steps=32, seed=0, condition={"label_wanted": wanted}, clamp={"text": {"end": {0: 1}}})
    assert bool((held["text"]["end"] == 1).all())


def test_an_interval_leaves_other_times_as_they_are_and_size_does_not_matter():
    free, states = PAIR.model(PAIR.law), PAIR.space.enumerate()
    t = torch.linspace(0.05, 0.9, 27, dtype=F64)
    plain, whole = (leaves(model(states, t)) for model in (free, PAIR.guided()))
    for size in (1, 7, 10_000):
        guided = gm.guidance.classifier(PAIR.process, free, PAIR.log_prob, interval=(0.3, 0.6), size=size)
        for found, before, after in zip(leaves(guided(states, t)), plain, whole, strict=True):
            inside = (t >= 0.3) & (t < 0.6)
            assert torch.equal(found[~inside], before[~inside])
            torch.testing.assert_close(found[inside], after[inside], atol=1e-12, rtol=1e-12)
    assert gm.guidance.classifier(PAIR.process, lambda x, t: "same", lambda x, t: 1 / 0, 0.0)(states, t) == "same"


LINE = gm.paths.Gaussian((2,))


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (gm.JumpProcess(LINE, bins=3), "all real values that a coordinate can have"),
        (gm.LevelFlow(LINE, 3), "those of the levels alone for jumps on a RealMixture path"),
        (gm.Flow(gm.paths.Geodesic(gm.spaces.Sphere(2))), "has no score"),
        (gm.Flow(gm.paths.Gaussian((2,), coupling=gm.couplings.OptimalTransport())), "a Gaussian path without a coupling has one"),
        (gm.CTMC(gm.paths.Metric((2,), "absolute", vocab_size=4)), "those of a mixture path without a coupling do"),
        (gm.processes.get("autoregressive")(gm.spaces.Categorical((3,), 2)), "no states with a later token before an earlier one"),
        (gm.Superposition([gm.LevelFlow(LINE, 3), gm.JumpProcess(LINE, 3)], [0.5, 0.5], "shared"), "all real values"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, gm.MarkovProcess) else "",
)
def test_a_part_that_cannot_be_guided_is_named_with_the_reason_before_any_work(part, reason):
    nested = gm.Product(word=tokens_of(2, 3), outer=gm.Product(inner=part))
    with pytest.raises(gm.GenmatchError, match=f"the part `outer`: the part `inner`: .*{reason}.*classifier_free"):
        gm.guidance.classifier(nested, None, None)


def test_who_asks_for_such_an_output_all_the_same_is_told_too():
    for process in (gm.JumpProcess(LINE, bins=3), gm.LevelFlow(LINE, 3)):
        with pytest.raises(gm.GenmatchError, match="has no output of another law of its states: the posterior over levels"):
            process.tilted(None, None, None, None)


def test_what_is_for_tokens_alone_points_to_the_classifier():
    with pytest.raises(gm.GenmatchError, match="use `classifier` or `classifier_free`"):
        gm.guidance.classifier_rates(PAIR.process, PAIR.log_prob)
    with pytest.raises(gm.GenmatchError, match=r"got outputs for \['a', 'b'\]; use `classifier`"):
        gm.guidance.classifier_posterior(PAIR.model(PAIR.law), PAIR.log_prob)(PAIR.space.enumerate(), full(0.5, 27))


def test_states_that_the_condition_excludes_are_not_guided_and_a_classifier_is_never_asked_for_nothing():
    process, shown = gm.Product(place=gm.Flow(LINE), word=tokens_of(1, 3), end=tokens_of(1, 2, "uniform")), []
    x = {"place": torch.ones(3, 2), "word": torch.tensor([[0], [1], [3]]), "end": torch.tensor([[0], [0], [1]])}

    def log_prob(x, t):
        shown.append(len(t))
        return torch.where(x["word"][:, 0] == 1, -torch.inf, x["place"].sum(-1))

    def model(x, t):
        return {"place": torch.zeros(len(t), 2), "word": torch.zeros(len(t), 1, 3), "end": torch.zeros(len(t), 1, 2)}

    output = gm.guidance.classifier(process, model, log_prob)(x, full(0.5, 3))
    assert (output["place"] != 0).any(-1).tolist() == [True, False, True]
    assert output["word"].isneginf().flatten(1).tolist() == [[False] * 3, [False] * 3, [False, True, False]]
    assert all(bool(leaf.isfinite().all()) for leaf in (output["place"], output["end"]))
    revealed = {**x, "word": torch.tensor([[0], [1], [2]])}
    gm.guidance.classifier(process, model, log_prob)(revealed, full(0.5, 3))
    assert min(shown) > 0


def test_a_classifier_that_rounds_to_nothing_is_told_how_to_sum():
    process = gm.Flow(LINE)
    x, t = torch.full((2, 2), 1e-30), full(0.5, 2)
    for log_prob, message in ((lambda x, t: x.sum(-1) * torch.nan, "got NaN for 2 of 2 states"), (lambda x, t: (x.sum(-1) ** 2).sqrt(), "by `logsumexp`")):
        with pytest.raises(gm.GenmatchError, match=message):
            gm.guidance.classifier(process, lambda x, t: x, log_prob)(x, t)


def test_a_constant_is_no_classifier_of_vectors():
    process = gm.Product(place=gm.Flow(LINE), word=tokens_of(1, 2))
    guided, x = gm.guidance.classifier(process, lambda x, t: x, lambda x, t: torch.zeros(len(t))), process.path.source(2)
    with pytest.raises(gm.GenmatchError, match="differentiable in the states that are vectors"):
        guided(x, full(0.5, 2))
