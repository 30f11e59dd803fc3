r"""Checkpoints: everything a run needs to go on, in a folder that is either whole or not there.

    step-00000500/
        model.safetensors  average.safetensors  optimizer.safetensors  history.safetensors
        manifest.json        format, step, settings, versions, and the size and SHA-256 of each file and of itself

Where several processes share a network, each writes its pieces of the first three to a file, `shard-00001-...`; what is read is whole.

A folder is written under another name, synced to the disk, and renamed; so a run that is killed at any moment leaves the checkpoints
that it had. What is read is checked against the manifest first. Nothing is unpickled: a file holds numbers, and loading runs no code.
The hashes find damage; against a forger who recomputes them they only make sure that what is loaded has the names, shapes and types of
the run at hand.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.files import writing_to
from genmatch.training import pieces

FORMAT, SHARDED = 1, 2
"""Of a checkpoint of whole files, and of one that several processes have written, each its part."""
FILES = ("model", "average", "optimizer", "history")
CUT = FILES[:3]
"""Those that are written in pieces if they are held in pieces."""
_WHOLE = {f"{name}.safetensors" for name in FILES}
_HIDDEN = (".writing-", ".removing-")
_PARSING = (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError, MemoryError, RecursionError)
"""What parsers raise over bytes that were made to confuse them."""

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and is what its manifest says.

    Attributes:
        folder: where it was read from.
        step: optimiser steps done.
        info: what else the run wrote: `settings`, `seconds` and `data`.
        versions: of genmatch, torch, numpy and safetensors when it was written.
        files: tensors by name, of each of `FILES`.
    """

    folder: Path
    step: int
    info: dict[str, Any]
    versions: dict[str, str]
    files: dict[str, dict[str, Tensor]]


def save(root: Path, step: int, files: Mapping[str, Tensors], info: Mapping[str, Any], *, keep: int) -> Path:
    """Writes the checkpoint of a step and removes all but the newest `keep`.

    Args:
        root: folder of the run's checkpoints, which must exist.
        step: optimiser steps done.
        files: tensors by name, for each of `FILES`.
        info: what JSON can hold: settings and the like.
        keep: how many checkpoints stay.

    Raises:
        GenmatchError: if the disk is full, the folder is gone, or anything else stops it; those written before are left as they were.
    """
    with writing(root, step):
        part = begin(root, step)
        listed = {f"{name}.safetensors": write(part / f"{name}.safetensors", files[name]) for name in FILES}
        return seal(part, step, listed, info, keep=keep)


@contextmanager
def writing(root: Path, step: int) -> Iterator[None]:
    """Sweeps up after a save that fails in this block, and says what remains.

    Args:
        root: folder of the run's checkpoints.
        step: optimiser steps done.

    Raises:
        GenmatchError: in the place of an `OSError`.
    """
    try:
        yield
    except OSError as error:
        shutil.rmtree(hidden(root, step), ignore_errors=True)
        raise GenmatchError(_failure(root, step, error)) from error


def hidden(root: Path, step: int) -> Path:
    """Where the files of a checkpoint are until all are written; the same for each process of a run.

    Args:
        root: folder of the run's checkpoints.
        step: optimiser steps done.
    """
    return root / f"{_HIDDEN[0]}step-{step:08d}"


def begin(root: Path, step: int) -> Path:
    """Makes the folder in which the files of a checkpoint are written, and returns it.

    Args:
        root: folder of the run's checkpoints.
        step: optimiser steps done.
    """
    part = hidden(root, step)
    os.mkdir(part)
    return part


def write(path: Path, tensors: Tensors) -> dict[str, Any]:
    """Writes tensors to a file, and returns what the manifest says of it."""
    from safetensors.torch import save as as_bytes

    content = as_bytes(_apart(tensors))
    with ThreadPoolExecutor(1) as beside:
        # The hash takes as long as the disk does.
        digest = beside.submit(lambda: hashlib.sha256(content).hexdigest())
        _write(path, content)
        return {"bytes": len(content), "sha256": digest.result()}


def _apart(tensors: Tensors) -> dict[str, Tensor]:
    """The tensors in memory of their own: the format refuses two that share it, as tied weights do."""
    found: dict[str, Tensor] = {}
    taken: set[int] = set()
    for key, value in tensors.items():
        mine = value.detach().cpu().contiguous()
        place = mine.untyped_storage().data_ptr()
        found[key] = mine.clone() if place in taken else mine
        taken.add(place)
    return found


def seal(part: Path, step: int, listed: Mapping[str, Any], info: Mapping[str, Any], *, keep: int) -> Path:
    """Makes a checkpoint of the folder in which its files are: manifest, sync, rename; and removes all but the newest `keep`.

    Args:
        part: the folder that `begin` made.
        step: optimiser steps done.
        listed: what `write` returned of each file, by name.
        info: what the manifest says of the run.
        keep: how many checkpoints stay.
    """
    root, final = part.parent, part.with_name(f"step-{step:08d}")
    manifest = {"format": FORMAT if set(listed) == _WHOLE else SHARDED, "step": step, "info": dict(info), "versions": _versions(), "files": dict(listed)}
    _write(part / "manifest.json", (json.dumps(manifest | {"sha256": _digest(manifest)}, indent=1) + "\n").encode())
    # Synced after all are written, so that the disk may put them down together.
    for path in (*(part / name for name in listed), part / "manifest.json", part):
        _sync(path)
    if final.exists():  # only one that did not verify: a run goes on from the newest that does
        _remove(final)
    os.rename(part, final)
    _sync(root)
    for old in folders(root)[:-keep]:
        _remove(old)
    return final


def folders(root: Path) -> list[Path]:
    """The checkpoints in a folder, whole or not, oldest first."""
    try:
        return sorted(path for path in root.iterdir() if path.name.startswith("step-") and path.name[5:].isdigit())
    except OSError:
        return []


def prepare(root: Path) -> None:
    """Makes the folder of checkpoints, tries to write there, and removes what a killed run left half done.

    Raises:
        GenmatchError: if it cannot be written to.
    """
    with writing_to(root, "checkpoints"):
        root.mkdir(parents=True, exist_ok=True)
        probe = root / f"{_HIDDEN[0]}{os.getpid()}-probe"
        probe.mkdir(exist_ok=True)
        probe.rmdir()
    for left in root.iterdir():
        if left.name.startswith(_HIDDEN):
            shutil.rmtree(left, ignore_errors=True)


def newest(root: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, and why newer ones were refused; None if the folder holds no checkpoint.

    Raises:
        GenmatchError: if there are checkpoints and none is whole.
    """
    refused: list[str] = []
    for folder in reversed(folders(root)):
        try:
            return read(folder), refused
        except GenmatchError as error:
            refused.append(str(error))
    if refused:
        raise GenmatchError(f"none of the {len(refused)} checkpoints in `{root}` is whole: {' '.join(refused)} Delete them to start from the beginning.")
    return None, refused


def read(folder: Path) -> Checkpoint:
    """Reads a checkpoint after checking every file of it.

    Raises:
        GenmatchError: if anything is missing, changed, or not what this version writes.
    """
    manifest = _manifest(folder)
    files = (_whole if manifest["format"] == FORMAT else _sharded)(folder, manifest["files"])
    if folder.name.startswith("step-") and folder.name != f"step-{manifest['step']:08d}":
        raise GenmatchError(f"`{folder}` holds the checkpoint of step {manifest['step']}; it was renamed or swapped.")
    return Checkpoint(folder, manifest["step"], manifest["info"], manifest["versions"], files)


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_bytes())
        found = manifest.pop("sha256")
    except OSError as error:
        raise GenmatchError(f"`{folder}` is no whole checkpoint: its manifest cannot be read ({error}).") from error
    except _PARSING as error:
        raise GenmatchError(f"`{path}` is damaged: it is no manifest ({type(error).__name__}).") from error
    if manifest.get("format") not in (FORMAT, SHARDED):
        raise GenmatchError(f"`{path}` has format {manifest.get('format')!r}, and this version reads {FORMAT} and {SHARDED}; use the version that wrote it.")
    if found != _digest(manifest):
        raise GenmatchError(f"`{path}` is damaged or was edited: its SHA-256 is not the one that it states.")
    kinds = {"step": int, "info": dict, "versions": dict, "files": dict}
    right = all(type(manifest.get(name)) is kind for name, kind in kinds.items()) and manifest["step"] >= 0
    files = set(manifest["files"]) if right else set()
    shards = {f"shard-{i:05d}-model-00001-of-00001.safetensors" for i in range(1, len(files))}
    if files != (_WHOLE if manifest["format"] == FORMAT else shards | {"history.safetensors"}) or len(files) < 2:
        raise GenmatchError(f"`{path}` is no manifest of a checkpoint: it lacks {', '.join(kinds)} of the right kind.")
    return manifest


def _whole(folder: Path, listed: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    return {name: _tensors(folder / f"{name}.safetensors", listed[f"{name}.safetensors"])[0] for name in FILES}


def _sharded(folder: Path, listed: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """The tensors by file, put together from the pieces of all processes."""
    parts = []
    for name in sorted(set(listed) - {"history.safetensors"}):
        tensors, content = _tensors(folder / name, listed[name])
        try:
            places = pieces.offsets(content)
            parts.append({key: (value, places[key]) for key, value in tensors.items()})
        except _PARSING as error:
            raise GenmatchError(f"`{folder / name}` does not say where its pieces belong ({type(error).__name__}: {error}).") from error
    try:
        joined = pieces.join(parts)
    except _PARSING as error:
        raise GenmatchError(f"the files of `{folder}` do not fit together ({error}); processes have written different states.") from error
    files: dict[str, dict[str, Tensor]] = {name: {} for name in CUT}
    for key, value in joined.items():
        file, _, name = key.partition("/")
        if file not in files:
            raise GenmatchError(f"`{folder}` holds `{key}`, which is in none of {', '.join(CUT)}.")
        files[file][name] = value
    return files | {"history": _tensors(folder / "history.safetensors", listed["history.safetensors"])[0]}


def _tensors(path: Path, stated: Any) -> tuple[dict[str, Tensor], bytes]:
    """The tensors of a file, parsed from the very bytes that were checked, and these."""
    from safetensors.torch import load

    try:
        content = path.read_bytes()
    except OSError as error:
        raise GenmatchError(f"`{path}` cannot be read ({error}).") from error
    if not isinstance(stated, dict) or stated != {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}:
        raise GenmatchError(f"`{path}` is damaged: its {len(content)} bytes are not those of the manifest.")
    try:
        return load(content), content
    except _PARSING as error:
        raise GenmatchError(f"`{path}` is not a safetensors file ({type(error).__name__}: {error}).") from error


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


@functools.cache
def _versions() -> dict[str, str]:
    found = {}
    for name in ("genmatch", "torch", "numpy", "safetensors"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _write(path: Path, content: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(file, rest) :]
    finally:
        os.close(file)


def _sync(path: Path) -> None:
    """Makes the content of a file, or the names in a folder, last."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _remove(folder: Path) -> None:
    """Removes a checkpoint under another name, so that no half of one is found; what is left is removed at the next start."""
    hidden = folder.with_name(f"{_HIDDEN[1]}{os.getpid()}-{folder.name}")
    try:
        os.rename(folder, hidden)
    except OSError:
        return
    shutil.rmtree(hidden, ignore_errors=True)


def _failure(root: Path, step: int, error: OSError) -> str:
    before = folders(root)
    kept = f"the last one is `{before[-1]}`" if before else "there is none before it"
    mend = "make it again" if not root.exists() else "free space or permit writing there"
    return f"the checkpoint of step {step} cannot be written to `{root}` ({error}); {kept}; {mend}, and start again with resume=True."
