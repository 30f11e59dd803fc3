"""Data that stay on the disk: what is read is what was written, in an order that a run goes on with, in bounded memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import genmatch as gm
from genmatch import draws
from genmatch.cli import main
from genmatch.data import mapped, preparing
from genmatch.draws import permuted
from genmatch.training.batches import batches
from genmatch.training.checkpoints import newest

TEXT = "".join(f"line {i}: né wörd\n" for i in range(400))


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def text(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT[:3001], encoding="utf-8")
    (tmp_path / "b.txt").write_text(TEXT[3001:], encoding="utf-8")
    return tmp_path


@pytest.fixture
def images(tmp_path):
    for i in range(12):
        folder = tmp_path / "pictures" / f"class{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10 + i, 8), (20 * i, 5, 250 - 20 * i)).save(folder / f"{i}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize("tokeniser", ["characters", "bytes", "bpe"])
@pytest.mark.parametrize("piece", [7, 2**20])
def test_the_tokens_of_files_are_the_files(text, monkeypatch, tokeniser, piece):
    monkeypatch.setattr(preparing, "_PIECE", piece)
    done = run("prepare", text / "a.txt", text / "b.txt", "--out", text / "out", "--tokeniser", tokeniser, "--length", 16)
    assert done.exit_code == 0, done.output
    data = gm.data.get(f"prepared:{text / 'out'}")
    view = data.views[0]
    every = torch.cat([view.train[:], view.test])
    # In one row: a character may lie across windows.
    assert TEXT.replace("\n", "⏎").startswith(data.write(every.flatten().unsqueeze(0))[0].rstrip("\ufffd"))
    assert every.dtype == torch.int64
    assert torch.equal(data.read(TEXT[:200])[:16], every[0]) or tokeniser == "bpe"
    assert len(view.test) == pytest.approx(0.1 * len(every), abs=1)
    assert run("prepare", "--verify", "--out", text / "out").output.startswith("whole")


def test_images_are_cut_to_squares_and_shuffled(images, tmp_path):
    done = run("prepare", images, "--out", tmp_path / "out", "--size", 4)
    assert done.exit_code == 0, done.output
    data = gm.data.get(f"prepared:{tmp_path / 'out'}")
    vectors, tokens = data.views
    assert (vectors.space.shape, tokens.space.shape, len(vectors.train), len(vectors.test)) == ((3, 4, 4), (48,), 11, 1)
    reds = sorted(torch.cat([tokens.train[:], tokens.test])[:, 0].tolist())
    assert reds == [20 * i for i in range(12)]
    torch.testing.assert_close(vectors.decode(vectors.train[:]), tokens.decode(tokens.train[:]))
    process, view = gm.Flow(gm.paths.Gaussian((3, 4, 4))), vectors
    model = gm.nn.MLP(process.space, process.output_shape, width=8, depth=1)
    assert len(gm.train(process, model, view.train, steps=3, batch_size=4, validation=view.test).losses) == 3


def test_an_epoch_sees_every_row_once_and_any_step_can_be_gone_to(text):
    preparing.prepare_text([text / "a.txt"], text / "out", tokeniser="bytes", length=8)
    view = gm.data.get(f"prepared:{text / 'out'}").views[0]
    n, size = len(view.train), 7
    stream = batches((view.train, None), view.space, size, seed=5)
    made = [next(stream) for _ in range(2 * n // size)]
    rows = torch.cat([batch.index for batch in made])
    assert rows[:n].sort().values.tolist() == list(range(n))
    assert not torch.equal(rows[:n], rows[n : 2 * n])
    assert torch.equal(torch.cat([batch.x1 for batch in made]), view.train[rows])
    later = next(batches(view.train, view.space, size, seed=5, start=9))
    assert torch.equal(later.x1, made[9].x1)


@pytest.mark.parametrize("n", [1, 2, 3, 64, 1000, 4097])
def test_an_order_that_is_not_listed_is_a_permutation(n, monkeypatch):
    found = permuted(torch.arange(n), n, seed=4)
    assert found.sort().values.tolist() == list(range(n))
    monkeypatch.setattr(draws, "_LISTED", 0)
    order = draws.Order(n, 5, seed=1)
    rows = torch.cat([order.batch(step) for step in range(2 * n)])
    for epoch in range(10):
        assert rows[epoch * n : (epoch + 1) * n].sort().values.tolist() == list(range(n))


def test_an_order_that_is_not_listed_looks_random():
    n = 10**9 + 7
    found = permuted(torch.arange(20000), n, seed=0).double() / n
    assert abs(float(found.mean()) - 0.5) < 4 / (12 * 20000) ** 0.5
    assert abs(float(torch.corrcoef(torch.stack([found[:-1], found[1:]]))[0, 1])) < 4 / 20000**0.5
    counts = torch.histc(found, 50, 0, 1)
    assert float(((counts - 400) ** 2 / 400).sum()) < 49 + 5 * (2 * 49) ** 0.5
    other = permuted(torch.arange(20000), n, seed=1)
    assert int((other == permuted(torch.arange(20000), n, seed=0)).sum()) < 5


def test_a_run_on_the_disk_goes_on_to_the_same_numbers(text):
    run("prepare", text / "a.txt", "--out", text / "out", "--length", 8)
    common = ["train", "--process", "mask", "--data", f"prepared:{text / 'out'}", "--width", 8, "--depth", 1, "--batch-size", 8, "--lr-schedule", "constant"]
    for folder, steps in (("a", 6), ("b", 3), ("c", 6)):
        (text / "b" / "run.json").unlink(missing_ok=True)
        done = run(*common, "--out", text / ("b" if folder == "c" else folder), "--steps", steps)
        assert done.exit_code == 0, done.output
    one, two = (newest(text / name / "checkpoints")[0].files for name in "ab")
    assert all(torch.equal(value, two[file][name]) for file in ("model", "average", "optimizer") for name, value in one[file].items())
    assert run("sample", text / "a", "--n", 2, "--steps", 2, "--out", text / "lines.txt").exit_code == 0


def test_what_was_changed_is_refused(text):
    run("prepare", text / "a.txt", "--out", text / "out", "--length", 8)
    out, name = text / "out", f"prepared:{text / 'out'}"
    content = (out / "values.bin").read_bytes()
    (out / "values.bin").write_bytes(content)
    assert gm.data.get(name), "copied is not changed"
    (out / "values.bin").write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(gm.GenmatchError, match="damaged or was changed: its SHA-256"):
        gm.data.get(name)
    os.utime(out / "values.bin", ns=(0, json.loads((out / "manifest.json").read_text())["mtime_ns"]))
    assert run("prepare", "--verify", "--out", out).exit_code == 1, "a change that hides is found by the hash"
    (out / "values.bin").write_bytes(content[:-1])
    with pytest.raises(gm.GenmatchError, match=r"it has \d+ bytes, and the manifest says"):
        gm.data.get(name)
    (out / "values.bin").unlink()
    with pytest.raises(gm.GenmatchError, match="cannot be read"):
        mapped.verify(out)


@pytest.mark.parametrize(
    ("name", "value"),
    [("dtype", "float64"), ("rows", -1), ("rows", 10**9), ("shape", None), ("kind", "sound"), ("format", 9), ("tokeniser", {"kind": "characters"})],
)
def test_a_manifest_that_lies_is_refused(text, name, value):
    run("prepare", text / "a.txt", "--out", text / "out", "--length", 8)
    path = text / "out" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(gm.GenmatchError, match="prepare"):
        gm.data.get(f"prepared:{text / 'out'}")


def test_what_cannot_be_prepared_is_said(text, images):
    (text / "latin.txt").write_bytes("né".encode("latin-1"))
    (images / "bad.png").write_bytes(b"no image")
    (text / "empty").mkdir()
    wrong = {
        ("prepare",): "needs text files, or a folder of images",
        ("prepare", text / "none.txt"): "cannot be read",
        ("prepare", text / "latin.txt"): "is not UTF-8",
        ("prepare", text / "a.txt", "--length", 3000): "are too few for windows of 3000",
        ("prepare", text / "a.txt", "--tokeniser", "byte"): "did you mean `bytes`",
        ("prepare", text / "empty"): "holds 0 images",
        ("prepare", images): "cannot be read as an image",
        ("train", "--process", "mask", "--data", "prepared"): "`prepared` needs a folder",
        ("train", "--process", "mask", "--data", f"prepared:{text}"): "holds no prepared data",
    }
    for words, message in wrong.items():
        done = run(*words, "--out", text / "out")
        assert done.exit_code == 1
        assert message in done.output
        assert not (text / "out").exists() or not list((text / "out").iterdir()), "nothing is left behind"
    run("prepare", text / "a.txt", "--out", text / "out")
    assert "holds prepared data" in run("prepare", text / "a.txt", "--out", text / "out").output


MEMORY = """
import resource, sys, torch, genmatch as gm
from genmatch.training.batches import batches
from genmatch.data import mapped, preparing
from pathlib import Path

def now():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) / 1024

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024

folder = Path(sys.argv[1])
preparing.prepare_text([folder / "small.txt"], folder / "small", tokeniser="bytes")
view = gm.data.get(f"prepared:{folder / 'small'}").views[0]
next(batches(view.train, view.space, 256, seed=0))
before = now()
open("/proc/self/clear_refs", "w").write("5")
preparing.prepare_text([folder / "big.txt"], folder / "big", tokeniser="bytes")
mapped.verify(folder / "big")
view = gm.data.get(f"prepared:{folder / 'big'}").views[0]
stream = batches(view.train, view.space, 256, seed=0)
for _ in range(300):
    next(stream)
print(before, peak(), (folder / "big" / "values.bin").stat().st_size / 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_stays_bounded_whatever_the_file(tmp_path):
    """256 MiB are prepared, hashed, and read in a shuffled order by a process that grows by much less."""
    line = "the quick brown fox jumps over the lazy dog, and again.\n"
    (tmp_path / "small.txt").write_text(line * 2**10)
    with (tmp_path / "big.txt").open("w") as file:
        for _ in range(2**28 // len(line) // 2**12 + 1):
            file.write(line * 2**12)
    environment = {**os.environ, "PYTHONPATH": str(Path(gm.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=False, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr
    before, peak, size = map(float, done.stdout.split())
    print(f"{size:.0f} MiB: from {before:.0f} to {peak:.0f} MiB")
    assert size >= 256
    assert peak - before < 100
