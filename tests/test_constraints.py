"""Constraints: known data stay in place with every process and solver; how exact the rest is, against enumeration."""

import re

import pytest
import torch

import genmatch as gm
from genmatch.constraints import known
from genmatch.tensors import leaves
from tests.test_product_states import DATA, JOINT
from tests.test_sampling import CURVED, EVERY
from tests.toys import SCHEDULES, chain, full, grid, line, redraw, seeded, token_data, token_law, token_marginal, total_variation

F64 = torch.float64
SQUARE = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]], dtype=F64)
SQUARE_LAW = torch.tensor([0.4, 0.1, 0.1, 0.4], dtype=F64)
"""Two signs that agree with probability 0.8."""


def plane():
    return gm.paths.Gaussian((2,), dtype=F64)


# What is held


@pytest.mark.parametrize(("process", "data", "name"), EVERY, ids=[f"{p}-{n}" for p, _, n in EVERY])
def test_known_data_are_held_by_every_process_and_solver(process, data, name):
    """Half of the coordinates, or the whole point where they are not free of each other."""
    x0 = process.path.source(5, rng=seeded())
    values = data[:1].expand_as(x0)
    mask = torch.zeros(process.space.shape, dtype=torch.bool)
    mask.flatten()[:: 2 if process.space.coordinatewise else 1] = True
    run = gm.simulate(process, gm.oracle(process, data), x0, grid(0, 1, 3), solver=name, clamp=(mask, data[0]), rng=seeded())
    assert torch.equal(run.states[-1][:, mask], values[:, mask])
    assert torch.equal(x0, process.path.source(5, rng=seeded()))
    if not x0.is_floating_point():
        assert all(torch.equal(x[:, mask], values[:, mask]) for x in run.states)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_vectors_are_shown_on_the_way_from_one_noise(schedule):
    process = gm.Flow(gm.paths.Gaussian((2,), schedule=schedule, dtype=F64), prediction="data")
    run = gm.simulate(process, gm.oracle(process, SQUARE), process.path.source(4, rng=seeded()), grid(0, 1, 8), clamp={1: 0.7}, rng=seeded(1))
    shown = torch.stack([x[:, 1] for x in run.states])
    alpha, sigma = (function(run.times).unsqueeze(-1) for function in (schedule.alpha, schedule.sigma))
    noise = (shown - alpha * 0.7)[:-1] / sigma[:-1]
    torch.testing.assert_close(noise, noise[:1].expand_as(noise), atol=1e-9, rtol=0)
    assert noise[0].unique().numel() == 4


@pytest.mark.parametrize(("process", "data"), CURVED, ids=[str(p) for p, _ in CURVED])
def test_on_a_manifold_a_whole_point_is_held_and_all_states_lie_on_it(process, data):
    mask = torch.tensor([True, False, True]).reshape(3, *[1] * len(process.space.shape)).expand(3, *process.space.shape)
    run = gm.simulate(process, gm.oracle(process, data), process.path.source(3, rng=seeded()), grid(0, 1, 4), clamp=(mask, data[1]), rng=seeded())
    for x in run.states:
        process.space.validate(x)
    assert torch.equal(run.states[-1][[0, 2]], data[1].expand(2, *process.space.shape))
    if not process.space.coordinatewise:
        with pytest.raises(gm.GenmatchError, match="not free of each other"):
            gm.sample(process, gm.oracle(process, data), 2, clamp={0: 0.0})


def test_angles_of_a_torus_are_free_of_each_other():
    process, data = CURVED[1]
    x = gm.sample(process, gm.oracle(process, data), 4, steps=3, seed=0, clamp={1: float(data[0, 1])})
    assert torch.equal(x[:, 1], data[:1, 1].expand(4))


@pytest.mark.parametrize(
    "clamp",
    [
        {"word": torch.tensor([2, 2, 1])},
        {"word": {0: 2, 1: 2, 2: 1}},
        {"word": (torch.tensor([True, True, True]), torch.tensor([[2, 2, 1]]).repeat(100, 1))},
    ],
)
def test_a_modality_is_held_whole_by_position_or_by_mask(clamp):
    x = gm.sample(JOINT, gm.oracle(JOINT, DATA), 100, steps=32, seed=0, clamp=clamp)
    assert torch.equal(x["word"], torch.tensor([[2, 2, 1]]).expand(100, 3))
    assert float((x["place"][:, 0] > 0).double().mean()) == 1


def test_parts_of_nested_products_are_held():
    nested = gm.Product(outer=JOINT, label=gm.CTMC(gm.paths.Mixture((1,), vocab_size=2)))
    data = {"outer": DATA, "label": torch.tensor([[0], [1]])}
    x = gm.sample(nested, gm.oracle(nested, data), 50, steps=16, seed=0, clamp={"outer": {"word": {1: 2}}})
    assert torch.equal(x["outer"]["word"], DATA["word"][1].expand(50, 3))
    assert torch.equal(x["label"], torch.ones_like(x["label"]))


def test_each_sample_has_its_own_values_in_any_batches():
    process = chain("mask")
    values = torch.arange(6) % 4
    given = values.clone()
    for size in (6, 4, 1):
        x = gm.sample(process, gm.oracle(process, token_data()), 6, steps=4, seed=0, clamp={1: values}, batch_size=size)
        assert torch.equal(x[:, 1], values)
    x[:] = 3
    assert torch.equal(values, given)


def test_nothing_held_changes_nothing():
    process = chain("uniform")
    model = gm.oracle(process, token_data(), token_law("strong"))
    draws = [gm.sample(process, model, 50, steps=4, seed=0, clamp=clamp) for clamp in (None, None)]
    assert torch.equal(*draws)
    free = gm.sample(process, model, 50, steps=4, seed=0, clamp={})
    assert free.shape == draws[0].shape


def test_the_caller_keeps_its_tensors():
    process = gm.Flow(plane())
    x0, values = process.path.source(3, rng=seeded()), torch.tensor([[0.5, 0.0]], dtype=F64).repeat(3, 1)
    mask = torch.tensor([True, False])
    before = [v.clone() for v in (x0, values, mask)]
    run = gm.simulate(process, gm.oracle(process, SQUARE), x0, grid(0, 1, 4), clamp=(mask, values))
    for x in run.states:
        x.fill_(9)
    assert all(map(torch.equal, (x0, values, mask), before))


# How exact the rest is


def conditional(data, law, clamp):
    """The law of the data given the tokens at the positions of `clamp`, by enumeration."""
    fits = torch.stack([data[:, position] == value for position, value in clamp.items()]).all(0)
    return torch.where(fits, law, 0) / law[fits].sum()


def test_known_levels_of_a_real_mixture_are_exact():
    """With one coordinate free the law given the other is drawn whatever the steps, and says what is in another part of a product."""
    grey = gm.JumpProcess(gm.paths.RealMixture(gm.spaces.Grid((2,), torch.tensor([-1.0, 0.5, 2.0]))))
    data, law = torch.tensor([[0.5, -1.0], [0.5, 2.0], [2.0, 2.0], [-1.0, 0.5]]), torch.tensor([0.15, 0.45, 0.3, 0.1])
    x = gm.sample(grey, gm.oracle(grey, data, law), 4000, steps=2, seed=0, clamp={0: 0.5})
    assert bool((x[:, 0] == 0.5).all())
    assert float((x[:, 1] == 2.0).double().mean()) == pytest.approx(0.75, abs=4 * (0.75 * 0.25 / 4000) ** 0.5)
    process = gm.Product(grey=grey, outer=gm.Product(word=gm.CTMC(gm.paths.Mixture((1,), 4))))
    model = gm.oracle(process, {"grey": data, "outer": {"word": torch.arange(4).unsqueeze(-1)}}, law)
    both = gm.sample(process, model, 400, steps=16, seed=0, clamp={"grey": {0: 0.5}})
    assert set(both["outer"]["word"].flatten().tolist()) == {0, 1}


def sampled_law(source, law, clamp, steps):
    """The law of a clamped sample of the toy tokens, by the exact matrices of each step and of what is held."""
    process = chain(source)
    states, data, schedule = process.space.enumerate(), token_data(), process.path.schedule
    n, width = len(states), process.space.num_states
    model, keep = gm.oracle(process, data, law), known(process.path, clamp, n).start(states, None)

    def hold(p, t):
        return torch.zeros_like(p).index_add_(0, process.space.index(keep(states, full(t, n))), p)

    p = hold(token_marginal(source, 0.0, law), 0.0)
    for t, s in torch.linspace(0, 1, steps + 1, dtype=F64).unfold(0, 2, 1).tolist():
        posterior = torch.nn.functional.pad(model(states, full(t, n)).softmax(-1), (0, width - data.max().item() - 1)).double()
        jumps = schedule.jump_probability(full(t, n), full(s, n)).unsqueeze(-1) * process.path.is_noise(states)
        p = hold(redraw(posterior, states, jumps) @ p, s)
    return torch.zeros(len(data), dtype=F64) + p[process.space.index(data)]


@pytest.mark.parametrize("kind", ["strong", "weak"])
@pytest.mark.parametrize("clamp", [{0: 2}, {0: 1, 2: 3}], ids=str)
def test_known_tokens_of_a_masked_chain_are_exact(kind, clamp):
    """The error is that of the steps alone: it falls in proportion to them, to nothing if one token is free."""
    law = token_law(kind)
    exact = conditional(token_data(), law, clamp)
    errors = [total_variation(sampled_law("mask", law, clamp, steps), exact) for steps in (8, 32)]
    assert errors[1] < max(errors[0] / 3.8, 1e-9)
    if len(clamp) == 2:
        assert errors[0] < 1e-9


@pytest.mark.parametrize(("kind", "low", "high", "blind"), [("strong", 0.15, 0.25, 0.65), ("weak", 0.03, 0.045, 0.09)])
def test_known_tokens_of_a_uniform_chain_are_approximate(kind, low, high, blind):
    """What the documentation says of them; `blind` is the error of the law without the condition."""
    law, clamp = token_law(kind), {0: 2}
    exact = conditional(token_data(), law, clamp)
    assert low < total_variation(sampled_law("uniform", law, clamp, 64), exact) < high
    rest = [torch.zeros(16, dtype=F64).index_add_(0, token_data()[:, 1] * 4 + token_data()[:, 2], p) for p in (law, exact)]
    assert total_variation(*rest) == pytest.approx(blind, abs=0.01)


def test_samples_have_the_law_of_the_matrices():
    process, law, clamp = chain("mask"), token_law("strong"), {0: 2}
    exact = sampled_law("mask", law, clamp, 8)
    x = gm.sample(process, gm.oracle(process, token_data(), law), 20_000, steps=8, seed=0, clamp=clamp)
    counts = torch.bincount(gm.spaces.Categorical((3,), 4).index(x), minlength=64).double()
    assert total_variation(counts / len(x), exact) < 0.015
    assert total_variation(sampled_law("mask", law, clamp, 1), exact) > 0.05


def test_the_oracle_knows_what_a_known_token_says_at_time_zero():
    """No noise shows a token that is data, but the limit of the posterior is that given the token."""
    process, law = chain("mask"), token_law("strong")
    model = gm.oracle(process, token_data(), law)
    posterior = model.posterior(torch.tensor([[2, 4, 4]]), full(0.0, 1))[0]
    torch.testing.assert_close(posterior, conditional(token_data(), law, {0: 2}), atol=1e-12, rtol=0)


AGREEMENTS = [
    (gm.Flow(plane()), 64, 0.62),
    (gm.Diffusion(plane(), noise=lambda t: (2 * (1 - t)).sqrt()), 64, 0.635),
    (gm.Diffusion(plane(), noise=lambda t: (32 * (1 - t)).sqrt()), 256, 0.75),
]


@pytest.mark.parametrize(("process", "steps", "figure"), AGREEMENTS, ids=["flow", "diffusion", "noisy diffusion"])
def test_known_coordinates_of_vectors_are_approximate_and_noise_brings_them_nearer(process, steps, figure):
    """P(second sign = first), 0.8 in the data and 0.5 without the condition; standard error 0.008."""
    x = gm.sample(process, gm.oracle(process, SQUARE, SQUARE_LAW), 4000, steps=steps, seed=0, clamp={0: 1.0})
    assert float((x[:, 1] > 0).double().mean()) == pytest.approx(figure, abs=0.03)


PAIR = gm.Product(image=gm.Flow(line()), label=gm.CTMC(gm.paths.Mixture((1,), vocab_size=2)))
PAIR_DATA = {"image": SQUARE[:, :1], "label": (SQUARE[:, 1:] > 0).long()}


def test_an_image_given_its_label_is_exact():
    """P(image > 0 given label 1) = 0.8; standard error 0.006."""
    x = gm.sample(PAIR, gm.oracle(PAIR, PAIR_DATA, SQUARE_LAW), 4000, steps=16, seed=0, clamp={"label": torch.tensor([1])})
    assert float((x["image"] > 0).double().mean()) == pytest.approx(0.8, abs=0.02)
    assert bool((x["label"] == 1).all())


def test_a_label_given_its_image_is_exact_from_a_late_start():
    """From t = 0 the label is drawn while the image is noise; a mask may wait until the image is clear."""
    model, clamp = gm.oracle(PAIR, PAIR_DATA, SQUARE_LAW), {"image": torch.tensor([1.0])}
    early = gm.sample(PAIR, model, 4000, steps=32, seed=0, clamp=clamp)
    late = gm.simulate(PAIR, model, PAIR.path.source(4000, rng=seeded()), grid(0.9, 1, 2), clamp=clamp, rng=seeded()).states[-1]
    assert float((early["label"] == 1).double().mean()) == pytest.approx(0.66, abs=0.03)
    assert float((late["label"] == 1).double().mean()) == pytest.approx(0.8, abs=0.02)
    assert bool((late["image"] == 1).all())


def test_solvers_keep_their_order():
    """The network sees what is known at each stage of a step, not only at its start."""
    process = gm.Flow(plane())
    model = gm.oracle(process, SQUARE + torch.tensor([[0.3, 0.1]], dtype=F64), SQUARE_LAW)
    x0 = process.path.source(64, rng=seeded())

    def end(steps, solver):
        run = gm.simulate(process, model, x0, grid(0, 0.8, steps), solver=solver, clamp={0: 1.3}, rng=seeded())
        return run.states[-1][:, 1]

    exact = end(256, "rk4")
    errors = torch.stack([(end(steps, "midpoint") - exact).abs().mean() for steps in (32, 64, 128)])
    orders = (errors[:-1] / errors[1:]).log2()
    assert bool((orders > 1.7).all()), orders


# What is refused


@pytest.mark.parametrize(
    ("process", "clamp", "message"),
    [
        (chain(), {3: 1}, "`clamp[3]` is out of range; positions of the flattened state are 0 to 2"),
        (chain(), {-1: 1}, "`clamp[-1]` is out of range"),
        (chain(), {torch.tensor(1): 1, 1: 2}, "names twice"),
        (chain(), {"a": 1}, "must name a position by an integer, got str"),
        (chain(), {1: 4}, "`clamp[1]` must hold tokens 0 to 3, got 4 (the mask is not data)"),
        (chain(), {1: 1.0}, "`clamp[1]` must hold int64 tokens"),
        (chain(), {1: torch.tensor([1, 2, 3])}, "`clamp[1]` must have shape (), or (2,) for each of 2 samples, got (3,)"),
        (chain(), {1: "a"}, "`clamp[1]` must be a tensor or a number"),
        (chain(), torch.tensor([1, 2, 3]), "`clamp` must be {position: value}, (mask, values) or {modality: values}, got Tensor"),
        (chain(), (torch.tensor([1, 0, 0]), torch.tensor([1, 2, 3])), "the mask, must be boolean"),
        (chain(), (torch.ones(2, dtype=torch.bool), torch.tensor([1, 2, 3])), "`clamp[0]` must have shape (3,)"),
        (chain(), (torch.ones(3, dtype=torch.bool), torch.tensor([1, 9, 3])), "`clamp` must hold tokens 0 to 3, got 9"),
        (gm.Flow(plane()), {0: float("nan")}, "`clamp[0]` must be finite"),
        (JOINT, {"text": 1}, "`clamp` names the modality 'text'; there are ['place', 'word']"),
        (JOINT, (torch.ones(3), torch.ones(3)), "`clamp` must be {modality: values}"),
        (JOINT, {"word": {5: 1}}, "`clamp['word'][5]` is out of range"),
        (JOINT, {"word": torch.tensor([1, 2, 3])}, "`clamp['word']` must hold tokens 0 to 2, got 3"),
        (JOINT, {"place": torch.zeros(3)}, "`clamp['place']` must have shape (2,)"),
    ],
)
def test_a_wrong_constraint_names_the_part_before_any_work(process, clamp, message):
    def never(x, t):
        raise AssertionError("the model was called")

    with pytest.raises(gm.GenmatchError, match=re.escape(message)):
        gm.sample(process, never, 2, clamp=clamp)
    with pytest.raises(gm.GenmatchError, match=re.escape(message)):
        gm.simulate(process, never, process.path.source(2), grid(0, 1, 2), clamp=clamp)


@pytest.mark.parametrize("process", [chain(s) for s in ("mask", "uniform")] + [p for p, _ in CURVED] + [JOINT], ids=repr)
def test_at_the_end_every_path_shows_the_data(process):
    x1 = process.path.data_space.random(4, rng=seeded())
    shown = process.path.known(x1, full(1.0, 4), process.path.source(4, rng=seeded()), rng=seeded())
    assert all(map(torch.equal, leaves(shown), leaves(x1)))
