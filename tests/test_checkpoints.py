"""Checkpoints: whole or refused, whatever happens to the files; the one before is always there."""

import hashlib
import json
import os
import pickle
import random
import shutil

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save as as_safetensors

import genmatch as gm
from genmatch.training import checkpoints
from genmatch.training.checkpoints import FILES, folders, newest, read
from tests.toys import TinyVector

DATA = torch.linspace(-1, 1, 7).unsqueeze(-1)
PROCESS = gm.Flow(gm.paths.Gaussian((1,)))
CASES = int(os.environ.get("GENMATCH_FUZZ", "150"))


def tiny(seed=0, width=8):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TinyVector(width=width)


def train(root, model=None, **change):
    arguments = {
        "steps": 6,
        "batch_size": 4,
        "lr": 1e-2,
        "warmup": 2,
        "seed": 3,
        "every": 2,
        "keep": 3,
        "resume": True,
        "validation": DATA,
        "validate_every": 2,
    }
    return gm.train(PROCESS, model or tiny(), DATA, checkpoint=root, **(arguments | change))


def bits(folder):
    return {name: (folder / f"{name}.safetensors").read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "run"
    train(root)
    return root


@pytest.fixture
def root(made, tmp_path):
    """A copy of a folder with the checkpoints of steps 2, 4 and 6."""
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def test_a_checkpoint_says_what_it_is(made):
    assert [folder.name for folder in folders(made)] == ["step-00000002", "step-00000004", "step-00000006"]
    assert sorted(path.name for path in made.iterdir()) == [folder.name for folder in folders(made)]
    manifest = json.loads((folders(made)[-1] / "manifest.json").read_text())
    assert (manifest["format"], manifest["step"], manifest["info"]["settings"]["seed"]) == (1, 6, 3)
    assert manifest["versions"]["torch"].startswith("2.")
    assert set(manifest["files"]) == {f"{name}.safetensors" for name in FILES}


@pytest.mark.parametrize("step", [2, 4])
def test_a_run_that_goes_on_ends_as_the_one_that_did_not_stop(made, root, step):
    for folder in folders(root)[step // 2 :]:
        shutil.rmtree(folder)
    torch.rand(17)
    model = tiny(seed=9)
    result = train(root, model)
    assert bits(folders(root)[-1]) == bits(folders(made)[-1])
    assert len(result.losses) == 6
    assert [at for at, _ in result.validation] == [2, 4, 6]
    again = train(root, tiny(seed=8))
    assert again.losses == result.losses
    assert again.seconds == pytest.approx(result.seconds)
    for one, two in zip(again.model.parameters(), result.model.parameters(), strict=True):
        assert torch.equal(one, two)


def test_old_ones_go_and_half_written_ones_are_swept(tmp_path):
    root = tmp_path / "run"
    (root / ".writing-1-step-00000002").mkdir(parents=True)
    (root / ".removing-1-step-00000001").mkdir()
    train(root, every=1, keep=2)
    assert sorted(path.name for path in root.iterdir()) == ["step-00000005", "step-00000006"]


def test_a_folder_with_checkpoints_is_not_overwritten(root):
    with pytest.raises(gm.GenmatchError, match="holds checkpoints of a run; pass resume=True"):
        train(root, resume=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 1e-3}, r"lr=0.01 \(now 0.001\); go on with the same"),
        ({"steps": 9}, r"steps=6 \(now 9\)"),
        ({"batch_size": 5}, "batch_size=4"),
        ({"model": tiny(width=16)}, r"is of another network: `.*` is torch.float32 .*, and"),
        ({"model": tiny().double()}, "is of another network"),
        ({"model": torch.nn.Linear(1, 1)}, "is of another network: .* is in one and not in the other; build the network as before"),
    ],
)
def test_another_run_does_not_go_on_from_it(root, change, message):
    model = change.get("model", tiny(5))
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(gm.GenmatchError, match=message):
        train(root, **({"model": model} | change))
    assert all(torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True)), "nothing is loaded"


def test_a_constant_rate_lets_a_run_grow(tmp_path):
    train(tmp_path / "a", lr_schedule="constant", accumulate=2)
    grown = train(tmp_path / "a", lr_schedule="constant", steps=8)
    straight = train(tmp_path / "b", lr_schedule="constant", steps=8)
    assert grown.losses == pytest.approx(straight.losses, rel=1e-5)


def test_fewer_data_points_are_another_run(root):
    with pytest.raises(gm.GenmatchError, match=r"7 data points \(now 3\)"):
        gm.train(PROCESS, tiny(), DATA[:3], checkpoint=root, resume=True, steps=6, batch_size=4, lr=1e-2, warmup=2, seed=3)


def damage(folder, other, rng):
    """One random corruption; says what it was."""
    files = [*(f"{name}.safetensors" for name in FILES), "manifest.json"]
    path = folder / rng.choice(files)
    content = bytearray(path.read_bytes())
    kind = rng.choice(["flip", "truncate", "grow", "swap", "delete", "empty", "stale", "forge", "folder"])
    if kind == "flip":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
    elif kind == "truncate":
        path.write_bytes(content[: rng.randrange(len(content))])
    elif kind == "grow":
        path.write_bytes(content + rng.randbytes(rng.randrange(1, 40)))
    elif kind == "swap":
        one, two = rng.sample(files, 2)
        first, second = (folder / one).read_bytes(), (folder / two).read_bytes()
        (folder / one).write_bytes(second)
        (folder / two).write_bytes(first)
    elif kind == "delete":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "stale":
        path.write_bytes((other / path.name).read_bytes())
        return f"{kind} {path.name}", path.read_bytes() == content
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    else:
        forge(folder, rng)
    return f"{kind} {path.name}", False


def refusal(action):
    """The message with which an action is refused, empty if it is not; any other error goes through."""
    try:
        action()
    except gm.GenmatchError as error:
        return str(error)
    return ""


LIES = [None, -1, 1.5, True, "6", [], {}, {"a": 1}, 10**400, float("inf"), "../../etc/passwd", ["x"] * 3]


def forge(folder, rng):
    """A manifest that lies, or a file of nonsense, with hashes that are right half the time."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("sha256")
    honest = json.dumps(manifest, sort_keys=True)
    while json.dumps(manifest, sort_keys=True) == honest:
        target = rng.choice(
            [manifest, manifest["info"], manifest["info"].get("settings") or {}, manifest["files"], rng.choice(list(manifest["files"].values()))]
        )
        names = [name for name in target if name not in ("seconds", "versions", "validate_every", "accumulate", "timeout")]
        if names:
            target[rng.choice(names)] = rng.choice(LIES)
    write_manifest(folder, manifest, right=rng.random() < 0.5)


def write_manifest(folder, manifest, right=True):
    content = dict(manifest) | {"sha256": checkpoints._digest(manifest) if right else "0" * 64}
    (folder / "manifest.json").write_text(json.dumps(content))


def refit(folder, name, content):
    """Replaces a file and makes every hash right: what a forger can do."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("sha256")
    (folder / f"{name}.safetensors").write_bytes(content)
    manifest["files"][f"{name}.safetensors"] = {"bytes": len(content), "sha256": checkpoints.hashlib.sha256(content).hexdigest()}
    write_manifest(folder, manifest)


def test_no_corruption_loads_and_each_is_a_plain_error(made, tmp_path):
    rng = random.Random(0)
    kinds = set()
    model = tiny()
    for case in range(CASES):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        (tmp_path / "run").mkdir()
        shutil.copytree(folders(made)[-1], tmp_path / "run" / "step-00000006")
        what, unchanged = damage(tmp_path / "run" / "step-00000006", folders(made)[0], rng)
        kinds.add(what)
        if unchanged:
            continue
        assert refusal(lambda: train(tmp_path / "run", model)), f"case {case}, {what}, loaded"
    assert len(kinds) > min(30, CASES // 5)


@pytest.mark.parametrize("name", FILES)
def test_a_forged_file_with_right_hashes_is_refused_by_what_it_holds(root, name):
    folder = folders(root)[-1]
    honest = read(folder).files[name]
    key, value = next(iter(honest.items()))
    wrongs = [
        {},
        honest | {"extra": torch.zeros(2)},
        honest | {key: value.unsqueeze(0)},
        honest | {key: value.to(torch.int16)},
        {k: v for k, v in honest.items() if k != key},
    ]
    for wrong in wrongs if name != "optimizer" else wrongs[1:]:
        refit(folder, name, as_safetensors({k: v.contiguous() for k, v in wrong.items()}))
        with pytest.raises(gm.GenmatchError):
            train(root)
    for junk in (b"", b"\xff" * 64, (2**62).to_bytes(8, "little") + b"{}", (4).to_bytes(8, "little") + b"[[[["):
        refit(folder, name, junk)
        with pytest.raises(gm.GenmatchError, match="is not a safetensors file"):
            read(folder)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("name", [*FILES, "manifest"])
def test_a_crafted_pickle_never_runs(root, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    folder = folders(root)[-1]
    if name == "manifest":
        (folder / "manifest.json").write_bytes(pickle.dumps(Bomb()))
    else:
        refit(folder, name, pickle.dumps(Bomb()))
    with pytest.raises(gm.GenmatchError):
        read(folder)
    with pytest.warns(UserWarning, match="going on from step 4; refused: .*step-00000006"):
        train(root)
    assert not (tmp_path / "exploded").exists()
    pickle.loads(pickle.dumps(Bomb()))
    assert (tmp_path / "exploded").exists(), "the bomb works"


def test_the_newest_that_is_whole_is_taken_and_the_others_are_named(made, root):
    (folders(root)[-1] / "average.safetensors").write_bytes(b"x")
    (folders(root)[-2] / "manifest.json").unlink()
    with pytest.warns(UserWarning, match=r"from step 2; refused: .*average.safetensors` is damaged.*manifest cannot be read"):
        train(root, tiny(4))
    assert bits(folders(root)[-1]) == bits(folders(made)[-1])
    assert newest(root)[0].step == 6
    for folder in folders(root):
        (folder / "model.safetensors").unlink()
    with pytest.raises(gm.GenmatchError, match=r"none of the 3 checkpoints in .* is whole.*Delete them to start from the beginning"):
        train(root)


def test_a_renamed_checkpoint_is_refused(root):
    folders(root)[0].rename(root / "step-00000009")
    with pytest.warns(UserWarning, match="holds the checkpoint of step 2; it was renamed"):
        train(root)


CALLS = ("mkdir", "open", "write", "fsync", "close", "rename")


def counted(monkeypatch, fail_at, partial=False):
    """Makes the `fail_at`-th file-system call of a save fail; returns the count of calls."""
    seen = {"n": 0}

    def wrap(name, original):
        def call(*args, **kwargs):
            seen["n"] += 1
            if seen["n"] == fail_at:
                if name == "write" and partial:
                    return original(args[0], args[1][: len(args[1]) // 2]) if len(args[1]) > 1 else original(*args)
                if name == "close":
                    original(*args)
                raise OSError(28, "No space left on device")
            return original(*args, **kwargs)

        return call

    class Watched:
        def __getattr__(self, name):
            return wrap(name, getattr(os, name)) if name in CALLS else getattr(os, name)

    monkeypatch.setattr(checkpoints, "os", Watched())
    return seen


def test_a_fault_at_any_call_of_a_save_leaves_the_one_before(made, tmp_path, monkeypatch):
    found = read(folders(made)[-1])
    arguments = {"files": found.files, "info": found.info, "keep": 1}
    with monkeypatch.context() as patch:
        (tmp_path / "count").mkdir()
        seen = counted(patch, 0)
        checkpoints.save(tmp_path / "count", 6, **arguments)
    assert seen["n"] >= 20
    for fail_at in range(1, seen["n"] + 1):
        root = tmp_path / str(fail_at)
        root.mkdir()
        checkpoints.save(root, 4, **arguments)
        with monkeypatch.context() as patch:
            counted(patch, fail_at)
            message = refusal(lambda root=root: checkpoints.save(root, 6, **arguments))
        assert not message or ("No space left on device" in message and "the last one is `" in message)
        whole, refused = newest(root)
        assert whole is not None
        assert not refused
        assert whole.step in (4, 6)
        assert not [path for path in root.iterdir() if path.name.startswith(".writing")]
        checkpoints.save(root, 7, **arguments)
        assert newest(root)[0].step == 7


def test_a_write_that_is_cut_short_is_gone_on_with(made, tmp_path, monkeypatch):
    found = read(folders(made)[-1])
    with monkeypatch.context() as patch:
        counted(patch, 3, partial=True)
        checkpoints.save(tmp_path, 6, found.files, found.info, keep=1)
    assert newest(tmp_path)[0].step == 6


def test_a_full_disk_stops_the_run_with_the_last_checkpoint_kept(tmp_path, monkeypatch):
    root = tmp_path / "run"
    train(root, every=2, steps=6, lr_schedule="constant")
    seen = counted(monkeypatch, -1)
    assert seen
    with monkeypatch.context() as patch:
        counted(patch, 4)
        with pytest.raises(gm.GenmatchError, match=r"checkpoint of step 8 cannot be written .*No space left.*the last one is `.*step-00000006`; free space"):
            train(root, every=2, steps=10, lr_schedule="constant")
    assert train(root, every=2, steps=10, lr_schedule="constant").losses == train(tmp_path / "b", steps=10, lr_schedule="constant").losses


class Vanishing(TinyVector):
    """Deletes the folder of checkpoints in the middle of a run."""

    root = None
    calls = 0

    def forward(self, x, t, condition=None):
        self.calls += 1
        if self.calls == 6:
            shutil.rmtree(self.root)
        return super().forward(x, t)


def test_a_folder_that_vanishes_is_said_and_the_weights_stay_in_the_network(tmp_path):
    model = Vanishing()
    model.root = tmp_path / "run"
    with pytest.raises(gm.GenmatchError, match=r"checkpoint of step 6 cannot be written.*there is none before it; make it again"):
        train(tmp_path / "run", model, validation=None, every=2)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("")
    model = tiny()
    before = [p.clone() for p in model.parameters()]
    for resume in (False, True):
        with pytest.raises(gm.GenmatchError, match="checkpoints cannot be written to"):
            train(tmp_path / "file" / "run", model, resume=resume)
    assert all(torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True))


def test_tensors_that_share_memory_are_written_apart(tmp_path):
    weight = torch.randn(3, 2)
    given = {"a": weight, "b": weight, "c": weight[1:], "d": weight.mT, "empty": torch.zeros(0), "none": torch.zeros(0)}
    entry = checkpoints.write(tmp_path / "x.safetensors", given)
    content = (tmp_path / "x.safetensors").read_bytes()
    assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == given.keys()
    assert all(torch.equal(found[key], value) for key, value in given.items())
