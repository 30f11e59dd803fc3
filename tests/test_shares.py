"""Work that is dealt out to processes: the same rows, whoever does them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from genmatch import shares
from genmatch.shares import CHUNK, shared
from genmatch.training.engine import Engine, OneProcess


def draw(rows, seed):
    rng = torch.Generator().manual_seed(seed)
    n = rows.stop - rows.start
    return {"place": torch.randn(n, 2, generator=rng), "row": torch.arange(rows.start, rows.stop)}


class Replayed(Engine):
    """One of several processes, with what the others would send, which was noted before."""

    def __init__(self, rank, size):
        self.rank, self.size = rank, size
        self.sent, self.others = [], None

    def gather(self, values):
        self.sent.append(values)
        place = len(self.sent) - 1
        return torch.stack([(self.others[rank][place] if self.others else values) for rank in range(self.size)])

    def reduce(self, values): ...
    def reduce_gradients(self, parameters): ...
    def share(self, tensors): ...
    def barrier(self): ...


@pytest.mark.parametrize("n", [1, CHUNK, CHUNK + 1, 5 * CHUNK - 3])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_rows_do_not_depend_on_how_many_share_them(n, size):
    whole = shared(n, draw, seed=3, purpose="rows", together=OneProcess())
    assert whole["row"].tolist() == list(range(n))
    sent = []
    for rank in range(size):
        engine = Replayed(rank, size)
        shared(n, draw, seed=3, purpose="rows", together=engine)
        sent.append(engine.sent)
    for rank in range(size):
        engine = Replayed(rank, size)
        engine.others = sent
        found = shared(n, draw, seed=3, purpose="rows", together=engine)
        assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_chunks_and_purposes_draw_different_numbers():
    first = shared(2 * CHUNK, draw, seed=3, purpose="rows", together=OneProcess())["place"]
    assert not torch.equal(first[:CHUNK], first[CHUNK:])
    assert not torch.equal(first, shared(2 * CHUNK, draw, seed=3, purpose="others", together=OneProcess())["place"])


@pytest.mark.slow
def test_two_processes_write_the_samples_and_figures_of_one(tmp_path, monkeypatch):
    """On the run that comes with the package."""
    environment = {**os.environ, "PYTHONPATH": str(Path(shares.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    together = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    said = {}
    for name, how in (("one", []), ("two", together)):
        for command in (["sample", "-n", "70", "--steps", "2", "--out", f"{name}.safetensors"], ["evaluate", "-n", "70", "--draws", "2"]):
            words = [sys.executable, *how, "-m", "genmatch", *command]
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=200, env=environment, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            said.setdefault(name, []).append(done.stdout.replace(f"{name}.safetensors", "file"))
    assert said["one"] == said["two"]
    one, two = (load_file(tmp_path / f"{name}.safetensors")["states"] for name in said)
    assert one.shape == (70, 64)
    assert torch.equal(one, two)
