"""The command line as a user types it."""

import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.torch import load_file

from genmatch.cli import main

SMALL = ["--steps", "3", "--batch-size", "16", "--width", "16", "--depth", "1"]


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_list_names_everything_with_a_line_each():
    result = run("list")
    assert result.exit_code == 0
    for name in ("flow", "diffusion", "mask", "uniform", "exact", "algorithm7", "digits", "checkerboard", "geodesic", "airports", "product", "digits+label"):
        assert name in result.output
    assert "Masked diffusion" in result.output


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["compare", "--help"]])
def test_help_and_lists_do_not_import_torch(arguments):
    code = f"import sys; from genmatch.cli import main; sys.argv[1:] = {arguments!r}\ntry: main()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_train_then_sample_to_each_kind_of_file(tmp_path):
    trained = run("train", "--process", "mask", "--data", "chain", "--out", tmp_path / "run", *SMALL)
    assert trained.exit_code == 0, trained.output
    assert "held-out loss" in trained.output
    for suffix in ("png", "npy", "safetensors"):
        sampled = run("sample", tmp_path / "run", "--n", 5, "--steps", 2, "--out", tmp_path / f"x.{suffix}")
        assert sampled.exit_code == 0, sampled.output
    tokens = np.load(tmp_path / "x.npy")
    assert tokens.shape == (5, 12)
    assert tokens.max() < 4
    run("sample", tmp_path / "run", "--n", 5, "--steps", 2, "--out", tmp_path / "y.npy")
    assert np.array_equal(tokens, np.load(tmp_path / "y.npy"))


def test_a_network_of_ones_own_is_trained_compared_and_sampled(tmp_path):
    own = ["--network", "tests.plugins:Linear", *SMALL]
    trained = run("train", "--process", "flow", "--data", "checkerboard", "--out", tmp_path / "run", *own)
    assert trained.exit_code == 0, trained.output
    sampled = run("sample", tmp_path / "run", "--n", 5, "--steps", 2, "--out", tmp_path / "x.npy")
    assert sampled.exit_code == 0, sampled.output
    assert set(load_file(tmp_path / "run" / "model.safetensors")) == {"affine.weight", "affine.bias"}
    compared = run("compare", "--process", "flow", "--process", "diffusion", "--data", "checkerboard", "--nfe", 2, "--out", tmp_path / "compared", *own)
    assert compared.exit_code == 0, compared.output
    assert "tests.plugins:Linear" in (tmp_path / "compared" / "report.html").read_text()


@pytest.mark.parametrize(("process", "counted"), [("mask", True), ("flow", False)])
def test_a_perplexity_is_told_of_tokens_and_not_of_densities(tmp_path, process, counted):
    assert run("train", "--process", process, "--data", "digits", "--out", tmp_path / "run", *SMALL).exit_code == 0
    assert ("perplexity" in run("evaluate", tmp_path / "run", "--n", 4, "--draws", 2).output) == counted
    told = json.loads(run("evaluate", tmp_path / "run", "--n", 4, "--draws", 2, "--json").stdout)
    assert (told["perplexity"] is not None) == counted


def test_the_network_of_the_documentation_is_told_labels_and_guided(tmp_path):
    trained = run("train", "--process", "flow", "--data", "digits", "--network", "perceptron:Perceptron", "--condition", "--out", tmp_path / "run", *SMALL)
    assert trained.exit_code == 0, trained.output
    sampled = run("sample", tmp_path / "run", "--label", 3, "--guidance", 2, "--n", 5, "--steps", 2, "--out", tmp_path / "x.npy")
    assert sampled.exit_code == 0, sampled.output


def test_a_product_is_trained_and_sampled_to_named_tensors_and_to_a_picture(tmp_path):
    assert run("train", "--process", "product", "--data", "digits+label", "--network", "transformer", "--out", tmp_path / "run", *SMALL).exit_code == 0
    for suffix in ("png", "safetensors"):
        sampled = run("sample", tmp_path / "run", "--n", 5, "--steps", 2, "--out", tmp_path / f"x.{suffix}")
        assert sampled.exit_code == 0, sampled.output
    states = load_file(tmp_path / "x.safetensors")
    assert {name: tuple(value.shape) for name, value in states.items()} == {"states.image": (5, 1, 8, 8), "states.label": (5, 1)}
    refused = run("sample", tmp_path / "run", "--out", tmp_path / "x.npy")
    assert refused.exit_code == 1
    assert "states.image, states.label; write .safetensors" in refused.output


@pytest.mark.parametrize(
    ("process", "data", "kind"),
    [
        ("mask", "chain", "tight upper bound of CTMC"),
        ("flow", "tests.plugins:blobs", "exact"),
        ("diffusion", "tests.plugins:blobs", "tight upper bound of Diffusion"),
        ("product", "digits+label", "tight upper bound of Product(image=Diffusion"),
        ("geodesic", "airports", "exact"),
    ],
)
def test_evaluate_prints_the_likelihood_and_its_kind(tmp_path, process, data, kind):
    run("train", "--process", process, "--data", data, "--out", tmp_path / "run", *SMALL)
    result = run("evaluate", tmp_path / "run", "--n", 8, "--draws", 4)
    assert result.exit_code == 0, result.output
    assert "bits a coordinate" in result.output
    assert kind in result.output
    assert run("evaluate", tmp_path / "run", "--n", 0).exit_code == 1


def test_compare_prints_the_table_and_where_the_report_is(tmp_path):
    result = run("compare", "--data", "tests.plugins:blobs", "--process", "flow", "--nfe", 2, "--out", tmp_path, *SMALL)
    assert result.exit_code == 0, result.output
    assert "x floor" in result.output
    assert f"report: {tmp_path / 'report.html'}" in result.output
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize("target", ["tests.plugins:small_flow", "tests.plugins:cosine_flow", "mask", "product"])
def test_check_prints_a_table_and_passes(target):
    result = run("check", target)
    assert result.exit_code == 0, result.output
    assert "passed" in result.output


def test_settings_come_from_toml_and_the_command_line_wins(tmp_path):
    config = tmp_path / "settings.toml"
    config.write_text('data = "chain"\nsteps = 4\nbatch-size = 8\nwidth = 16\ndepth = 1\n[train]\nprocess = "mask"\n[compare]\nnfe = [2]\n')
    result = run("train", "--config", config, "--steps", 2, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "run" / "run.json").read_text()
    assert '"steps": 2' in text
    assert '"batch_size": 8' in text
    assert '"process": "mask"' in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--process", "flwo"], "did you mean `flow`"),
        (["train", "--process", "mask", "--data", "tests.plugins:blobs"], "fits no view"),
        (["train", "--process", "no.such.module:Name"], "cannot be imported"),
        (["train", "--process", "flow", "--steps", "0"], "`steps` must be a positive integer"),
        (["sample", "nowhere"], "holds no finished run"),
        (["check", "genmatch.spaces:Space"], "is a space; expected a process"),
        (["check", "genmatch.paths:Path"], "is a path; expected a process"),
        (["check", "genmatch.solvers.general:Euler"], "`gm.check_solver` checks a solver"),
        (["check", "genmatch.data.toys:gaussians"], "makes a data set; expected a process"),
        (["check", "genmatch:MarkovProcess"], "does not define `generator`, `target`"),
        (["check", "genmatch.data:get"], "`genmatch.data:get` cannot make a process"),
        (["check", "genmatch:sample"], "must take the space of the data and nothing else"),
        (["sample", __file__], "holds no finished run"),
        (["infill", "nowhere"], "`nowhere` is no run, and a text has gaps"),
        (["train", "flow"], "a process is named by --process"),
        (["check-checkpoint", "nowhere"], "`nowhere` is no folder"),
        (["report", "nowhere"], "holds no comparison"),
        (["compare", "--data", "chain", "--process", "mask", "--out", __file__], "results cannot be written to"),
        (["compare", "--data", "chain", "--process", "autoregressive"], "(`--network transformer`)"),
        (["compare", "--data", "chain", "--network", "math:sqrt"], "must be a class or function that makes a network from (space, output_shape,"),
        (["train", "--process", "flow", "--network", "tests.plugins:no_network"], "must make a torch.nn.Module, called as network(x, t, **condition), got int"),
        (["train", "--process", "flow", "--network", "birth"], "unknown network `birth`"),
        (["check", "heun"], "There is a solver of that name"),
        (["check", "flow.py:flow"], "such as `flow:flow`"),
        (["train", "--process", "flow", "--config", "missing.toml"], "cannot be read as TOML"),
    ],
)
def test_a_wrong_request_is_one_line_without_a_trace(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert result.output.startswith("Error: ")
    assert len(result.output.strip().splitlines()) == 1


def test_an_unknown_setting_in_toml_names_the_known_ones(tmp_path):
    config = tmp_path / "settings.toml"
    config.write_text("setps = 4\n")
    result = run("train", "--process", "flow", "--config", config)
    assert result.exit_code == 1
    assert "setps" in result.output
    assert "steps" in result.output


@pytest.mark.parametrize(
    "words",
    [["train", "--process", "flow"], ["train", "--process", "flow", "--set", "seed={}"], ["compare"], ["sample"], ["infill"], ["evaluate"], ["check", "flow"]],
)
def test_a_seed_of_more_than_64_bits_is_refused_before_any_work(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [word.format(2**64) for word in words]
    found = run(*words, *([] if "--set" in words else ["--seed", 2**64]))
    assert (found.exit_code, found.output) == (1, f"Error: `seed` must be an integer of at most 64 bits, got {2**64}.\n")
    assert not list(tmp_path.iterdir())


def test_wrong_kind_of_sample_file_is_refused_first(tmp_path):
    run("train", "--process", "mask", "--data", "chain", "--out", tmp_path / "run", *SMALL)
    result = run("sample", tmp_path / "run", "--out", tmp_path / "x.jpg")
    assert result.exit_code == 1
    assert "must end in .png, .gif, .npy, .safetensors" in result.output


def test_a_run_that_was_told_labels_is_sampled_by_class(tmp_path):
    assert run("train", "--process", "flow", "--data", "digits", "--condition", "--out", tmp_path / "run", *SMALL).exit_code == 0

    def drawn(*arguments):
        result = run("sample", tmp_path / "run", "--n", 2, "--steps", 2, "--out", tmp_path / "x.npy", *arguments)
        return np.load(tmp_path / "x.npy") if result.exit_code == 0 else result.output

    plain, three, guided = drawn(), drawn("--label", 3), drawn("--label", 3, "--guidance", 2)
    assert not np.array_equal(plain, three)
    np.testing.assert_allclose(guided - three, three - plain, atol=0.05)
    assert np.array_equal(drawn("--label", 3, "--guidance", 1), three)
    assert "there is no label 10: labels are 0 to 9" in drawn("--label", 10)
    assert "none is given for `guidance` 2" in drawn("--guidance", 2)
    run("train", "--process", "mask", "--data", "chain", "--out", tmp_path / "other", *SMALL)
    assert "was told no labels; train one with `--condition`" in run("sample", tmp_path / "other", "--label", 0).output


def test_a_gif_ends_where_the_same_draw_without_it_ends(tmp_path):
    from PIL import Image

    from genmatch.results import sample_run
    from genmatch.runs import load_run

    run("train", "--process", "mask", "--data", "chain", "--out", tmp_path / "run", *SMALL)
    loaded = load_run(tmp_path / "run")
    one, two = (sample_run(loaded, tmp_path / name, n=5, steps=3, seed=4) for name in ("x.gif", "x.npy"))
    assert one.equal(two)
    with Image.open(tmp_path / "x.gif") as film:
        assert film.n_frames == 4


def test_samples_go_to_a_file_that_fits_the_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("sample", "--n", 2, "--steps", 2).exit_code == 0
    assert len((tmp_path / "samples.txt").read_text().splitlines()) == 2
    run("train", "--process", "mask", "--data", "chain", "--out", tmp_path / "run", *SMALL)
    found = run("sample", "run", "--n", 2, "--steps", 2)
    assert found.stdout == "2 samples: samples.png\n", "no picture where there is no terminal"
    assert (tmp_path / "samples.png").exists()


def test_a_terminal_shows_pictures_in_half_blocks():
    from PIL import Image

    from genmatch.cli.terminal import half_blocks

    image = Image.new("RGB", (2, 4))
    image.putpixel((1, 0), (255, 0, 0))
    text = half_blocks(image, columns=2, rows=2)
    assert text.plain == "▀▀\n▀▀"
    assert [span.style.color.name for span in text.spans][:2] == ["#000000", "#ff0000"]


def test_report_is_made_again_and_joins(tmp_path):
    for seed in (0, 1):
        run("compare", "--data", "tests.plugins:blobs", "--process", "flow", "--nfe", 2, "--seed", seed, "--out", tmp_path / str(seed), *SMALL)
    again = run("report", tmp_path / "0", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["lines"][0]["seeds"] == [0]
    joined = run("report", tmp_path / "0", tmp_path / "1", "--out", tmp_path / "both")
    assert joined.exit_code == 0, joined.output
    assert "±" in joined.stdout
    assert "mean of 2 seeds" in (tmp_path / "both" / "report.html").read_text()
    assert json.loads((tmp_path / "both" / "results.json").read_text())["lines"][0]["seeds"] == [0, 1]
    assert json.loads((tmp_path / "0" / "results.json").read_text())["plan"], "the results of a comparison stay what they are"
    assert run("report", tmp_path / "none").exit_code == 1


def test_what_trains_tells_the_time_that_is_left_in_plain_lines(monkeypatch, capsys):
    from genmatch.training import progress

    clock = iter([0.0, 5.0, 20.0, 25.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.shown("flow", total=100, done=10) as tell:
        for step in (20, 50, 60):
            tell(step, "loss 1.0")
    assert capsys.readouterr().err == "flow: step 50 of 100, loss 1.0, 0:25 left\n"
