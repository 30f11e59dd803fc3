"""What goes wrong while a run goes on: signals, losses that are no numbers, processes that die."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import genmatch as gm
from genmatch.training.checkpoints import folders, newest
from genmatch.training.interrupts import Interrupts
from tests.toys import TinyVector

DATA = torch.linspace(-1, 1, 9).unsqueeze(-1)
PROCESS = gm.Flow(gm.paths.Gaussian((1,)))
SETTINGS = {"steps": 12, "batch_size": 6, "lr": 1e-2, "warmup": 2, "seed": 1}


@pytest.fixture(autouse=True)
def interruptible():
    """A shell's background job is started with Ctrl-C ignored, and so would be every test that sends it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Eventful(TinyVector):
    """Does something at a call."""

    calls = 0

    def __init__(self, at, event):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__()
        self.at, self.event = at, event

    def forward(self, x, t, condition=None):
        self.calls += 1
        out = super().forward(x, t)
        changed = self.event(out, t) if self.calls == self.at else None
        return out if changed is None else changed


def quiet():
    return Eventful(0, None)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_saves_and_ends_and_the_run_goes_on_from_there(tmp_path, number, error):
    before = signal.getsignal(number)
    with pytest.raises(error) as ended:
        gm.train(PROCESS, Eventful(5, lambda out, t: os.kill(os.getpid(), number)), DATA, checkpoint=tmp_path / "run", **SETTINGS)
    if error is SystemExit:
        assert ended.value.code == 143
    assert signal.getsignal(number) is before
    assert newest(tmp_path / "run")[0].step == 4
    result = gm.train(PROCESS, quiet(), DATA, checkpoint=tmp_path / "run", resume=True, **SETTINGS)
    assert result.losses == gm.train(PROCESS, quiet(), DATA, **SETTINGS).losses


def test_without_checkpoints_signals_are_left_alone():
    with pytest.raises(KeyboardInterrupt):
        gm.train(PROCESS, Eventful(5, lambda out, t: os.kill(os.getpid(), signal.SIGINT)), DATA, **SETTINGS)


def test_a_second_signal_is_not_held_back():
    with Interrupts(True) as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_names_step_process_times_and_points(tmp_path, value):
    def late(out, t):
        return torch.where((t > 0.5).unsqueeze(-1), value, out)

    model = Eventful(8, late)
    with pytest.raises(gm.GenmatchError) as error:
        gm.train(PROCESS, model, DATA, checkpoint=tmp_path / "run", every=3, **SETTINGS)
    message = str(error.value)
    for part in ("at step 7 on process 0: 3 of 6 points of its batch, at t from 0.", "data points ", "the last checkpoint is that of step 6"):
        assert part in message
    assert newest(tmp_path / "run")[0].step == 6
    saved = newest(tmp_path / "run")[0].files["model"]
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items()), "the weights are those before the step"


def test_the_points_that_are_named_are_the_points_that_are_wrong():
    data = DATA.clone()

    class Picky(TinyVector):
        def forward(self, x, t, condition):
            return super().forward(x, t) + torch.where(condition == 7, math.nan, 0.0).unsqueeze(-1) * self.training

    with pytest.raises(gm.GenmatchError, match=r"1 of \d points .*, data points 7;"):
        gm.train(PROCESS, Picky(), (data, torch.arange(9.0)), accumulate=2, **SETTINGS)


def test_a_gradient_that_is_no_number_stops_before_the_weights_change():
    model = Eventful(8, lambda out, t: (out * 0).sqrt() + out)
    with pytest.raises(gm.GenmatchError, match=r"the gradient is nan at step 7, and the loss is"):
        gm.train(PROCESS, model, DATA, **SETTINGS)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_an_exploding_loss_stops():
    settings = SETTINGS | {"steps": 40}
    grow = Eventful(32, lambda out, t: out * 1e4)
    with pytest.raises(gm.GenmatchError, match=r"the loss is .* at step 31, .*e\+0.* times its usual size; lower `lr`"):
        gm.train(PROCESS, grow, DATA, **settings)
    assert len(gm.train(PROCESS, Eventful(32, lambda out, t: out * 1e4), DATA, explode=math.inf, **settings).losses) == 40
    assert len(gm.train(PROCESS, Eventful(32, lambda out, t: out * 3), DATA, **settings).losses) == 40


def test_metrics_are_one_line_a_step_and_a_resumed_run_goes_on_with_them(tmp_path):
    path = tmp_path / "metrics.jsonl"

    def lines():
        return [json.loads(line) for line in path.read_text().splitlines()]

    with pytest.raises(KeyboardInterrupt):
        gm.train(PROCESS, Eventful(5, lambda out, t: os.kill(os.getpid(), signal.SIGINT)), DATA, checkpoint=tmp_path / "run", metrics=path, **SETTINGS)
    assert [line["step"] for line in lines()] == [1, 2, 3, 4]
    with path.open("a") as file:
        file.write('{"step": 5, "loss": 9}\n{"step": 6, "lo')
    result = gm.train(PROCESS, quiet(), DATA, checkpoint=tmp_path / "run", resume=True, metrics=path, validation=DATA, **SETTINGS)
    assert [line["step"] for line in lines()] == list(range(1, 13))
    assert [line["loss"] for line in lines()] == result.losses
    assert lines()[-1]["validation"] == result.validation[-1][1]
    with pytest.raises(gm.GenmatchError, match="metrics cannot be written"):
        gm.train(PROCESS, quiet(), DATA, metrics=tmp_path / "run", **SETTINGS)


def kills(*arguments):
    command = [sys.executable, "-m", "tests.kills", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_runs_that_are_killed_end_as_if_nothing_had_happened():
    result = kills("--kills", "15")
    assert result.returncode == 0, result.stdout + result.stderr
    total = result.stdout.splitlines()[-1]
    assert "'kills': 15" in total
    assert "'different': 0" in total
    assert "'resumed': 0" not in total


@pytest.mark.slow
def test_a_writer_that_is_not_atomic_loses_runs():
    result = kills("--kills", "10", "--writer", "in-place", "--config", "flow")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "'lost': 0" not in result.stdout.splitlines()[-1]


TOGETHER = """
import sys, json, torch, genmatch as gm
from tests.kills import CONFIGS
torch.manual_seed(0)
process, model, data = CONFIGS[sys.argv[1]][0]()
torch.manual_seed(torch.distributed.is_torchelastic_launched() and int(__import__("os").environ["RANK"]))
settings = json.loads(sys.argv[2])
result = gm.train(process, model.double(), {k: (v.double() if v.is_floating_point() else v) for k, v in data.items()} if isinstance(data, dict) else data,
                  steps=10, batch_size=8, lr=1e-2, warmup=2, checkpoint=sys.argv[3], seed=0, **settings)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("config", "settings"), [("product", {"accumulate": 2})])
def test_two_processes_are_one_with_twice_the_rows(tmp_path, config, settings):
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    runs = {
        "one": [sys.executable, str(script), config, "{}", str(tmp_path / "one")],
        "two": [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            str(script),
            config,
            json.dumps(settings),
            str(tmp_path / "two"),
        ],
    }
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    for command in runs.values():
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, env=environment)
        assert done.returncode == 0, done.stderr
        assert "UserWarning" not in done.stderr
    one, two = (newest(tmp_path / name)[0] for name in runs)
    assert one.step == two.step == 10
    for name in one.files:
        for key, value in one.files[name].items():
            torch.testing.assert_close(two.files[name][key], value, rtol=1e-6, atol=1e-9)
    assert len(folders(tmp_path / "two")) == 1
