"""A network in parts: the same numbers as whole, less memory of each process, checkpoints that any number of processes reads."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load as from_safetensors

import genmatch as gm
from genmatch.training import checkpoints, pieces
from genmatch.training.checkpoints import folders, newest, read
from genmatch.training.distributed_tensors import held
from genmatch.training.sharding import Sharded
from tests import sharded_runs
from tests.test_checkpoints import refusal, write_manifest
from tests.toys import TinyVector


def same(one, two, tolerance=1e-6):
    assert one.step == two.step
    for name in one.files:
        assert set(one.files[name]) == set(two.files[name])
        for key, value in one.files[name].items():
            torch.testing.assert_close(two.files[name][key], value, rtol=tolerance, atol=1e-9)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder of what two processes did; 5 steps of one process were there before."""
    where = tmp_path_factory.mktemp("two")
    sharded_runs.train("words", where / "from-one", 5)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "tests.sharded_runs", str(where)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return where


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    where = tmp_path_factory.mktemp("one")
    return {name: (where / name, sharded_runs.train(name, where / name, 10)[1]) for name in sharded_runs.MAKERS}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(sharded_runs.MAKERS))
def test_two_processes_with_half_the_network_each_are_one(one, two, name):
    root, result = one[name]
    same(newest(root)[0], newest(two / f"{name}-two")[0])
    first, second = (json.loads((two / f"{rank}.json").read_text())[name] for rank in range(2))
    assert first["losses"] == second["losses"] == pytest.approx(result.losses, rel=1e-9)
    assert first["held"] + second["held"] == first["all"]
    assert max(first["held"], second["held"]) < 0.51 * first["all"], "no process holds more than its half"
    process, _, data = sharded_runs.MAKERS[name]()
    assert first["loss after"] == pytest.approx(gm.training.validation_loss(process, result.model, (data, {})), rel=1e-9), "the result is whole"


@pytest.mark.slow
def test_checkpoints_go_from_one_process_to_two_and_back(one, two, tmp_path):
    same(newest(one["words"][0])[0], newest(two / "from-one")[0])
    shutil.copytree(two / "from-two", tmp_path / "run")
    assert {path.name for path in folders(tmp_path / "run")[-1].iterdir()} == {
        "manifest.json",
        "history.safetensors",
        "shard-00001-model-00001-of-00001.safetensors",
        "shard-00002-model-00001-of-00001.safetensors",
    }
    sharded_runs.train("words", tmp_path / "run", 10)
    same(newest(one["words"][0])[0], newest(tmp_path / "run")[0])


@pytest.mark.slow
def test_a_loss_that_is_no_number_on_one_process_ends_both(two):
    first, second = (json.loads((two / f"{rank}.json").read_text())["error"] for rank in range(2))
    assert "the loss of process 1 is not finite at step 1" in first
    assert "at step 1 on process 1: 4 of 4 points" in second


@pytest.fixture
def alone():
    """A group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


PROCESS, DATA = gm.Flow(gm.paths.Gaussian((1,))), torch.linspace(-1, 1, 9).unsqueeze(-1)
SETTINGS = {"steps": 6, "batch_size": 4, "lr": 1e-2, "warmup": 2, "seed": 1, "every": 3, "keep": 5, "resume": True}


def tiny(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TinyVector()


def test_a_group_of_one_is_no_group(alone, tmp_path):
    result = gm.train(PROCESS, tiny(), DATA, checkpoint=tmp_path / "a", sharding="full", **SETTINGS)
    assert all(type(p) is torch.nn.Parameter for p in result.model.parameters())
    dist.destroy_process_group()
    whole = gm.train(PROCESS, tiny(), DATA, checkpoint=tmp_path / "b", **SETTINGS)
    assert result.losses == whole.losses
    same(newest(tmp_path / "a")[0], newest(tmp_path / "b")[0], 0)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    again = gm.train(PROCESS, tiny(3), DATA, checkpoint=tmp_path / "b", sharding="full", **SETTINGS)
    assert again.losses == whole.losses
    assert [held(p) for p in again.model.parameters()] == [p.nbytes for p in whole.model.parameters()]


@pytest.fixture
def folder(alone, tmp_path):
    gm.train(PROCESS, tiny(), DATA, checkpoint=tmp_path / "run", sharding="full", **SETTINGS)
    return folders(tmp_path / "run")[-1]


SHARD = "shard-00001-model-00001-of-00001.safetensors"


def test_damage_of_a_piece_is_found(folder):
    content = (folder / SHARD).read_bytes()
    for wrong in (content[:-1], content + b"x", b"", content[:90] + b"?" + content[91:]):
        (folder / SHARD).write_bytes(wrong)
        assert "is damaged" in refusal(lambda: read(folder))
    (folder / SHARD).unlink()
    assert "cannot be read" in refusal(lambda: read(folder))
    with pytest.warns(UserWarning, match="going on from step 3; refused: .*step-00000006"):
        gm.train(PROCESS, tiny(), DATA, checkpoint=folder.parent, **SETTINGS)


def test_a_forged_piece_is_a_plain_error(folder):
    content = (folder / SHARD).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    stated = json.loads(header["__metadata__"]["DCP_SHARDING_INFO"])
    name = next(key for key, entry in stated.items() if entry["saved_offsets"])
    lies = [{}, [], None, stated | {name: {"saved_offsets": [10**12, 0][: len(stated[name]["saved_offsets"])]}}, stated | {name: {"saved_offsets": ["a"]}}]
    lies += [stated | {name: {}}, stated | {name: {"saved_offsets": [-1, 0]}}, {key: value for key, value in stated.items() if key != name}]
    for lie in lies:
        forged = header | {"__metadata__": header["__metadata__"] | {"DCP_SHARDING_INFO": json.dumps(lie)}}
        text = json.dumps(forged).encode()
        resealed(folder, SHARD, len(text).to_bytes(8, "little") + text + content[8 + length :])
        assert refusal(lambda: read(folder)), lie
    resealed(folder, SHARD, content)
    assert read(folder).step == 6


def resealed(folder, name, content):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("sha256")
    (folder / name).write_bytes(content)
    manifest["files"][name] = {"bytes": len(content), "sha256": checkpoints.hashlib.sha256(content).hexdigest()}
    write_manifest(folder, manifest)


def test_no_file_of_a_sharded_checkpoint_is_anything_but_numbers_and_json(folder):
    for path in folder.iterdir():
        assert json.loads(path.read_text()) if path.suffix == ".json" else from_safetensors(path.read_bytes())


@pytest.mark.parametrize("call", ["begin", "write", "seal"])
def test_a_fault_while_pieces_are_written_leaves_the_one_before(alone, tmp_path, monkeypatch, call):
    root = tmp_path / "run"
    gm.train(PROCESS, tiny(), DATA, checkpoint=root, sharding="full", **(SETTINGS | {"steps": 3, "lr_schedule": "constant"}))

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, call, full)
        with pytest.raises(gm.GenmatchError, match=r"step 6 cannot be written .*No space left.*step-00000003"):
            gm.train(PROCESS, tiny(), DATA, checkpoint=root, sharding="full", **(SETTINGS | {"lr_schedule": "constant"}))
    assert [path.name for path in root.iterdir()] == ["step-00000003"]


def test_a_disk_that_is_full_for_torch_is_said(alone, tmp_path):
    engine = Sharded(torch.device("cpu"), 5.0)
    files = {name: {"x": torch.zeros(2)} for name in checkpoints.FILES}
    (tmp_path / ".writing-step-00000001").write_text("in the way")
    with pytest.raises(gm.GenmatchError, match="the checkpoint of step 1 cannot be written"):
        engine.save(tmp_path, 1, files, {}, keep=1)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([(torch.zeros(2), (0,)), (torch.zeros(2), (1,))], "do not make a whole"),
        ([(torch.zeros(2), (0,)), (torch.zeros(2), (0,)), (torch.zeros(2), (4,))], "overlap"),
        ([(torch.zeros(2), (0,)), (torch.zeros(2).long(), (2,))], "not of one tensor"),
        ([(torch.zeros(2), (0, 0))], "not of one tensor"),
    ],
)
def test_pieces_that_do_not_fit_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        pieces.join({"x": part} for part in parts)
