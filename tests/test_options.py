"""Settings from files and words, checkpoints and several processes, as a user of the command line meets them."""

import itertools
import json
import shutil
import subprocess
import sys
import tomllib

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file

from genmatch.cli import main
from genmatch.settings import RunSettings

SMALL = {"process": "mask", "data": "chain", "steps": 6, "batch_size": 8, "width": 8, "depth": 1, "every": 2}


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("[train]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in SMALL.items()))
    return path


def test_print_config_documents_every_setting_and_reads_back(tmp_path):
    printed = run("train", "--print-config")
    assert printed.exit_code == 0, printed.output
    lines = printed.output.splitlines()
    values = tomllib.loads(printed.output)["train"]
    assert set(values) | {"process"} == set(RunSettings.__dataclass_fields__) | {"out", "every", "keep"}
    for before, line in itertools.pairwise(lines):
        assert "=" not in line or line.startswith("# F") or before.startswith("# "), f"{line} is explained"
    for name, value in values.items():
        if name in RunSettings.__dataclass_fields__:
            assert value == getattr(RunSettings, name)
    (tmp_path / "all.toml").write_text(printed.output)
    assert run("train", tmp_path / "all.toml", "--print-config").output == printed.output


def test_words_win_over_the_file_and_options_over_both(config):
    for arguments, steps in [((), 6), (("--set", "train.steps=7"), 7), (("--set", "steps=7", "--steps", 8), 8)]:
        for order in ([config, *arguments], [*arguments, config]):
            printed = tomllib.loads(run("train", *order, "--print-config").output)["train"]
            assert (printed["steps"], printed["width"], printed["process"]) == (steps, 8, "mask")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "train.lrr=1"], "unknown setting `lrr`; did you mean `lr`"),
        (["--set", "lr"], "`--set` needs key=value, got `lr`; e.g. --set train.lr=1e-3"),
        (["--set", "compare.lr=1"], "is of the table `compare`, and this is `genmatch train`"),
        (["--set", "steps=2.5"], "`steps` must be an integer, got 2.5"),
        (["--set", "steps=true"], "`steps` must be an integer, got True"),
        (["--set", "lr=fast"], "`lr` must be a number, got 'fast'"),
        (["--set", "network=3"], "`network` must be a string, got 3"),
        (["--set", "lr=-1"], "`lr` must be a number in (0, inf)"),
        (["--set", "precision=fp8"], "unknown precision `fp8`"),
        (["--set", "accumulate=9"], "`batch_size` = 8 cannot be cut into 9 parts"),
        (["--set", "network=mpl"], "did you mean `mlp`"),
        (["--keep", "0"], "`keep` must be a positive integer"),
    ],
)
def test_a_wrong_word_is_one_line(config, tmp_path, words, message):
    result = run("train", config, "--out", tmp_path / "run", *words)
    assert result.exit_code == 1
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_a_file_that_is_no_settings_is_refused(tmp_path):
    for text, message in [
        ("train = 3", "must be a table"),
        ("[train]\nlearning_rate = 1", "unknown setting `learning_rate`"),
        ("a = = 1", "cannot be read as TOML"),
    ]:
        (tmp_path / "bad.toml").write_text(text)
        result = run("train", tmp_path / "bad.toml")
        assert result.exit_code == 1
        assert message in result.output


def test_a_run_has_settings_metrics_and_checkpoints_beside_it_and_goes_on(config, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert run("train", config, "--out", first).exit_code == 0
    assert {path.name for path in first.iterdir()} == {"model.safetensors", "run.json", "settings.toml", "metrics.jsonl", "checkpoints"}
    assert tomllib.loads((first / "settings.toml").read_text())["train"]["steps"] == 6
    assert len((first / "metrics.jsonl").read_text().splitlines()) == 6
    again = run("train", first / "settings.toml", "--out", second)
    assert again.exit_code == 0, again.output
    assert (second / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()
    # As if it had been killed after step 4.
    for left in ("run.json", "model.safetensors"):
        (second / left).unlink()
    shutil.rmtree(second / "checkpoints" / "step-00000006")
    assert run("train", config, "--out", second, "--set", "accumulate=1").exit_code == 0
    assert (second / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()


def test_check_checkpoint_names_what_is_damaged(config, tmp_path):
    run("train", config, "--out", tmp_path / "run")
    whole = run("check-checkpoint", tmp_path / "run")
    assert whole.exit_code == 0, whole.output
    assert whole.output.count("whole ") == 2
    assert "step 6" in whole.output
    damaged = tmp_path / "run" / "checkpoints" / "step-00000006"
    (damaged / "model.safetensors").write_bytes(b"")
    result = run("check-checkpoint", tmp_path / "run")
    assert result.exit_code == 1
    assert "model.safetensors` is damaged" in result.output
    assert result.output.count("whole ") == 1
    assert run("check-checkpoint", damaged).exit_code == 1
    assert run("check-checkpoint", tmp_path / "nowhere").exit_code == 1


@pytest.mark.slow
def test_torchrun_trains_the_same_run(config, tmp_path):
    assert run("train", config, "--out", tmp_path / "one").exit_code == 0
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "genmatch",
        "train",
        str(config),
        "--out",
        str(tmp_path / "two"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("held-out loss") == 1, "one process speaks"
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, value in one.items():
        assert float((two[name] - value).abs().max()) < 1e-6


def test_a_refused_command_leaves_the_settings_of_a_stopped_run(config, tmp_path):
    folder = tmp_path / "run"
    assert run("train", config, "--out", folder).exit_code == 0
    (folder / "run.json").unlink()
    before = (folder / "settings.toml").read_bytes()
    refused = run("train", config, "--out", folder, "--steps", 7)
    assert refused.exit_code == 1
    assert "steps=6 (now 7)" in refused.output
    assert (folder / "settings.toml").read_bytes() == before
