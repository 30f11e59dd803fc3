"""Infilling and editing: what is known stays, what is wrong is named, and an edit of data is data."""

import pytest
import torch
from click.testing import CliRunner

import genmatch as gm
from genmatch.cli import main
from genmatch.data.tokenisers import characters, words
from genmatch.infilling import infill_run, known_tokens
from genmatch.runs import load_run
from genmatch.tensors import leaves
from tests.test_product_states import DATA, JOINT
from tests.test_sampling import EVERY
from tests.toys import SOURCES, GaussianMixture, V, chain, chi_square, full, line, seeded, token_data, token_law

F64 = torch.float64
READ = characters("Once upon a time.").encode
SMALL = ["--steps", "3", "--batch-size", "16", "--width", "16", "--depth", "1"]


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def spelled(known):
    return {place: "".join(characters("Once upon a time.").decode([token])) for place, token in known.items()}


# What is known


def test_each_underscore_is_free_and_everything_else_is_known():
    known, spoken = known_tokens(READ, 20, "Once ____ a")
    assert spelled(known) == {**dict(enumerate("Once ")), **dict(enumerate(" a", 9))}
    assert spoken == 11
    assert known_tokens(READ, 5, "__") == ({}, 2)


def test_pieces_stand_at_their_positions_also_in_the_gaps_of_a_text():
    known, spoken = known_tokens(READ, 20, "", ["0:Once,5:upon", "10:a"])
    assert spelled(known) == {**dict(enumerate("Once")), **dict(enumerate("upon", 5)), 10: "a"}
    assert spoken == 11
    filled, _ = known_tokens(READ, 20, "Once ____ a", ["5:upon"])
    assert "".join(spelled(filled)[i] for i in range(11)) == "Once upon a"


def test_a_comma_divides_only_before_a_position_and_words_are_tokens_too():
    tokeniser = words("Well, then: we go, 5 of us")
    known, _ = known_tokens(tokeniser.encode, 10, "", ["0:Well, then,6: go"])
    assert [tokeniser.pieces[known[place]] for place in (0, 1, 2, 6)] == ["Well", ",", " then", " go"]


@pytest.mark.parametrize(
    ("text", "at", "message"),
    [
        ("", ["3:Once,5:upon"], "`5:upon` and `3:Once` overlap at position 5"),
        ("Once", ["0:Once"], "`0:Once` and `Once` overlap at position 0"),
        ("", ["17:Once"], "`17:Once` takes positions 17 to 20, and the window of this model has positions 0 to 19"),
        ("Once" * 6, [], "takes positions 0 to 23"),
        ("_" * 21, [], "takes positions 0 to 20"),
        ("", ["0:Once,5:upöon"], "`5:upöon`: unknown character 'ö' at position 2"),
        ("Twice __", [], "`Twice `: unknown character 'T'"),
        ("", ["Once"], "`Once` must be position:text"),
        ("", ["-1:Once"], "`-1:Once` must be position:text"),
        ("", ["0:"], "`0:` must be position:text"),
    ],
)
def test_a_wrong_piece_is_named(text, at, message):
    with pytest.raises(gm.GenmatchError) as error:
        known_tokens(READ, 20, text, at)
    assert message in str(error.value)


# The command


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text") / "run"
    result = run("train", "--process", "mask", "--data", "text", "--out", folder, *SMALL)
    assert result.exit_code == 0, result.output
    return folder


def test_infill_prints_texts_with_what_is_known_in_its_place(trained):
    result = run("infill", trained, "Once ____ a time", "--at", "40:the end", "--n", 3, "--steps", 4)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert len(lines) == 3
    assert len(set(lines)) == 3
    for text in lines:
        assert len(text) == 64
        assert text[:5] + text[9:16] == "Once  a time"
        assert text[40:47] == "the end"
        assert "_" not in text
    assert run("infill", trained, "Once ____ a time", "--at", "40:the end", "--n", 3, "--steps", 4).output == result.output
    stopped = run("infill", trained, "Once ____ a time", "--n", 2, "--steps", 4, "--stop").output.splitlines()
    assert [len(text) for text in stopped] == [16, 16]


def test_a_line_that_was_written_can_be_read_again(trained):
    loaded = load_run(trained)
    (line,) = infill_run(loaded, "First Citizen:⏎", n=1, steps=2)
    assert line.startswith("First Citizen:⏎")
    assert infill_run(loaded, line, n=1, steps=2) == [line]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--at", "0:Once,2:upon"], "overlap at position 2"),
        ([], "nothing is known"),
        (["x", "--solver", "nothing"], "unknown solver"),
        (["x", "--n", "0"], "`n`"),
    ],
)
def test_a_wrong_request_is_one_line(trained, arguments, message):
    result = run("infill", trained, *arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_a_run_without_text_is_refused(tmp_path):
    run("train", "--process", "mask", "--data", "chain", "--out", tmp_path / "run", *SMALL)
    result = run("infill", tmp_path / "run", "x")
    assert result.exit_code == 1
    assert "infilling needs a run on text, and this one is on chain" in result.output


def test_a_process_from_left_to_right_knows_a_beginning_only():
    process = gm.processes.Autoregressive(gm.paths.Sequential(4, vocab_size=3))

    def model(x, t):
        return torch.zeros(len(x), 4, 3)

    assert gm.sample(process, model, 2, steps=4, clamp={0: 1, 1: 2}, seed=0)[:, :2].tolist() == [[1, 2], [1, 2]]
    with pytest.raises(gm.GenmatchError, match="does not look ahead"):
        gm.sample(process, model, 2, steps=4, clamp={0: 1, 2: 2}, seed=0)


# Editing


def one_token(source, rates="mixture"):
    law = SOURCES[source][:1] if source == "positions" else SOURCES[source]
    return gm.CTMC(gm.paths.Mixture((1,), V, source=law), rates=rates)


TOKEN_LAW = torch.tensor([0.05, 0.6, 0.25, 0.1], dtype=F64)
TOKENS = torch.arange(V).unsqueeze(-1)


@pytest.mark.parametrize("source", ["mask", "uniform", "tokens"])
@pytest.mark.parametrize("rates", ["mixture", "reversal"])
@pytest.mark.parametrize("t", [0.0, 0.3, 0.8])
def test_an_edit_of_data_is_data_and_of_anything_else_it_is_not(source, rates, t):
    """One token, whose steps are exact: sum over x of p(x) p_t(x_t given x) carried to 1 is p."""
    process, n = one_token(source, rates), 8_000
    model = gm.oracle(process, TOKENS, TOKEN_LAW)
    x = torch.multinomial(TOKEN_LAW, n, replacement=True, generator=seeded(1)).unsqueeze(-1)
    found = gm.edit(process, model, x, t, steps=3, seed=0)
    assert chi_square(found.flatten().bincount(minlength=V), TOKEN_LAW) > 1e-3
    if t == 0.8:
        assert float((found != x).double().mean()) < 0.3, "two independent draws differ in 0.57 of cases"
        stays = gm.edit(process, model, torch.zeros_like(x), t, steps=3, seed=0)
        assert chi_square(stays.flatten().bincount(minlength=V), TOKEN_LAW) < 1e-4


@pytest.mark.parametrize("source", ["mask", "uniform", "tokens"])
def test_an_edit_of_one_point_has_the_law_written_out(source):
    """K(y given x) = sum over x_t of p(y given x_t) p_t(x_t given x), for a draw in one step."""
    process, t, n = one_token(source), 0.45, 8_000
    model, states = gm.oracle(process, TOKENS, TOKEN_LAW), process.space.enumerate()
    there = process.path.log_prob(states, full(t, len(states)), torch.full((len(states), 1), 2)).exp()
    law = there @ model.posterior(states, full(t, len(states)))
    found = gm.edit(process, model, torch.full((n, 1), 2), t, steps=1, seed=0)
    assert chi_square(found.flatten().bincount(minlength=V), law) > 1e-3
    assert chi_square(found.flatten().bincount(minlength=V), TOKEN_LAW) < 1e-4


def test_an_edit_of_three_tokens_is_exact_with_an_exact_sampler_and_holds_what_is_clamped():
    process, law, n = chain(), token_law("strong"), 4_000
    model = gm.oracle(process, token_data(), law)
    x = token_data()[torch.multinomial(law, n, replacement=True, generator=seeded(2))]
    found = gm.edit(process, model, x, 0.4, solver="first-hitting", steps=4, seed=0)
    counts = gm.spaces.Categorical((3,), V).index(found).bincount(minlength=V**3)
    assert chi_square(counts, law) > 1e-3
    held = gm.edit(process, model, x, 0.0, steps=4, seed=0, clamp=(torch.tensor([True, False, False]), x))
    assert torch.equal(held[:, 0], x[:, 0])
    assert not torch.equal(held[:, 1:], x[:, 1:])


def test_an_edit_on_the_line_is_data_too():
    law, n = GaussianMixture(gm.schedules.CondOT()), 4_000
    x = law.quantiles((torch.arange(n, dtype=F64) + 0.5) / n, 1.0).unsqueeze(-1)
    found = gm.edit(gm.Flow(line()), law.velocity, x, 0.5, solver="rk4", steps=16, seed=0).sort(0).values
    gap = law.cdf(found, full(1.0, n)) - (torch.arange(n, dtype=F64) + 0.5) / n
    assert float(gap.abs().max()) < 1.95 / n**0.5
    assert float((found - x).abs().max()) > 0.1


@pytest.mark.parametrize("process", [*{id(p): p for p, _, _ in EVERY}.values(), JOINT], ids=str)
def test_every_process_edits_and_repeats_with_a_seed(process):
    data = next((d for p, d, _ in EVERY if p is process), DATA)
    model, x = gm.oracle(process, data), gm.tensors.tree_map(lambda v: v[:2], data)
    one, two = (gm.edit(process, model, x, 0.6, steps=2, seed=3) for _ in range(2))
    process.space.validate(one)
    assert all(map(torch.equal, leaves(one), leaves(two)))


@pytest.mark.parametrize(
    ("x", "t", "message"),
    [
        (torch.zeros(2, 1, dtype=torch.int64), 1.0, r"`t` must be a number in \[0, 1\)"),
        (torch.zeros(2, 1, dtype=torch.int64), torch.tensor(0.5), "`t` must be"),
        (torch.full((2, 1), V), 0.5, "must"),
    ],
)
def test_an_edit_of_what_is_no_data_is_refused(x, t, message):
    process = one_token("mask")
    with pytest.raises(gm.GenmatchError, match=message):
        gm.edit(process, gm.oracle(process, TOKENS), x, t)


def test_an_edit_takes_the_grids_of_a_sample():
    """Those in the clock of the path's schedule too."""
    flow, points = gm.Flow(line(), "data"), torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    for name in ("cosine", "angle", "log-snr"):
        assert gm.edit(flow, gm.oracle(flow, points), points, 0.3, grid=name, seed=0).shape == points.shape


def test_a_text_alone_is_filled_by_the_packaged_run():
    given = run("infill", "text", "Once ____ a time", "--n", 1, "--steps", 4)
    assert run("infill", "Once ____ a time", "--n", 1, "--steps", 4).output == given.output
    assert given.output.startswith("Once ")
    (line,) = run("infill", "--at", "0:Once,5:upon", "--n", 1, "--steps", 4).output.splitlines()
    assert (line[:4], line[5:9]) == ("Once", "upon")
