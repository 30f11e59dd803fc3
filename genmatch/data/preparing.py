"""Making data that are read from the disk: text files to tokens, folders of images to pixels, a piece at a time."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from genmatch.data.mapped import FORMAT, MANIFEST, VALUES
from genmatch.data.tokenisers import BPE, Bytes, Tokeniser, Vocabulary
from genmatch.errors import GenmatchError, positive_integer, unknown
from genmatch.files import NOT_UTF8, write_json, writing_to

_PIECE = 2**20
"""Characters that are read at a time."""
_LEARNED_FROM = 2**24
"""Characters from which byte-pair encoding learns."""
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
TOKENISERS = ("characters", "bytes", "bpe")


def prepare_text(sources: Iterable[Path], out: Path, *, tokeniser: str | Tokeniser = "characters", length: int = 64) -> dict[str, Any]:
    """Writes the tokens of text files, one after the other, to a folder, and returns the manifest.

    Args:
        sources: text files in UTF-8.
        out: the folder.
        tokeniser: "characters", those that occur; "bytes"; "bpe", learned from the beginning; the path of a JSON file of the package
            tokenizers; or a tokeniser of your own, whose tokens are then data without a text.
        length: tokens of a window, as which they are read.

    Raises:
        GenmatchError: if a file cannot be read, or there is not a window of text.
    """
    files, length = [Path(source) for source in sources], positive_integer(length, "length")
    code = tokeniser if isinstance(tokeniser, Tokeniser) else _tokeniser(str(tokeniser), files)
    dtype = "uint8" if code.vocab_size <= 2**8 else "uint16" if code.vocab_size <= 2**16 else "uint32"
    with _Writer(out) as writer:
        for piece in _pieces(files):
            writer.add(code.encode(piece).numpy().astype(np.dtype(dtype).newbyteorder("<")))
        tokens = writer.size // np.dtype(dtype).itemsize
        if tokens < 2 * length:
            raise GenmatchError(f"{tokens} tokens are too few for windows of {length} in both splits; lower `length`.")
        return writer.finish(
            kind="text", dtype=dtype, rows=tokens, shape=[], length=length, levels=code.vocab_size, tokeniser=_described(code), sources=[str(f) for f in files]
        )


def prepare_images(source: Path, out: Path, *, size: int = 32, grey: bool = False) -> dict[str, Any]:
    """Writes the images of a folder and of the folders in it, in a shuffled order, and returns the manifest.

    Args:
        source: the folder.
        out: where to write.
        size: pixels of a side: images are cut to a square about their middle and made that large.
        grey: whether colours are left out.

    Raises:
        GenmatchError: if an image cannot be read, or there are none.
    """
    size = positive_integer(size, "size")
    names = sorted(path for path in source.rglob("*") if path.suffix.lower() in IMAGES)
    if len(names) < 2:
        raise GenmatchError(f"`{source}` holds {len(names)} images, and two are needed at least, one for each split; they end in {', '.join(IMAGES)}.")
    # Folders are classes, most often: the last tenth must not be one class.
    random.Random(0).shuffle(names)
    with _Writer(out) as writer:
        for name in names:
            writer.add(_pixels(name, size, grey))
        return writer.finish(kind="images", dtype="uint8", rows=len(names), shape=[1 if grey else 3, size, size], levels=256, sources=[str(source)])


class _Writer:
    """Fills the file of numbers under another name, hashing it on the way; a folder with a manifest is finished."""

    def __init__(self, out: Path) -> None:
        self.out, self.part, self.size = out, out / f".{os.getpid()}-{VALUES}", 0
        self._hash = hashlib.sha256()

    def __enter__(self) -> _Writer:
        if (self.out / MANIFEST).exists():
            raise GenmatchError(f"`{self.out}` holds prepared data; choose another folder, or delete that one.")
        with writing_to(self.out, "data"):
            self.out.mkdir(parents=True, exist_ok=True)
            self._file = self.part.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.part.unlink(missing_ok=True)

    def add(self, values: np.ndarray[Any, Any]) -> None:
        content = values.tobytes()
        try:
            self._file.write(content)
        except OSError as error:
            raise GenmatchError(f"data cannot be written to `{self.out}` ({error}); free space there.") from error
        self._hash.update(content)
        self.size += len(content)

    def finish(self, **about: Any) -> dict[str, Any]:
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            os.replace(self.part, self.out / VALUES)
            changed = (self.out / VALUES).stat().st_mtime_ns
            manifest = {"format": FORMAT, **about, "bytes": self.size, "sha256": self._hash.hexdigest(), "mtime_ns": changed}
            write_json(self.out / MANIFEST, manifest)
        except OSError as error:
            raise GenmatchError(f"data cannot be written to `{self.out}` ({error}); free space there.") from error
        return manifest


def _pieces(files: Iterable[Path]) -> Iterator[str]:
    """The text a piece at a time, each but the last of a file up to an end of a line where there is one."""
    for path in files:
        rest = ""
        try:
            with path.open(encoding="utf-8", newline="") as file:
                while piece := file.read(_PIECE):
                    done, end, rest = (rest + piece).rpartition("\n")
                    if end or len(rest) > _PIECE:
                        yield done + end if end else rest
                        rest = rest if end else ""
        except UnicodeDecodeError as error:
            raise GenmatchError(f"`{path}` is not UTF-8 ({error.reason}); expected text files in UTF-8, or a folder of images: {NOT_UTF8}.") from error
        except OSError as error:
            raise GenmatchError(f"the text `{path}` cannot be read: {error.strerror}; expected text files in UTF-8, or a folder of images.") from error
        if rest:
            yield rest


def _tokeniser(name: str, files: list[Path]) -> Tokeniser:
    if name == "bytes":
        return Bytes()
    if name == "characters":
        found: set[str] = set()
        for piece in _pieces(files):
            found |= set(piece)
        return Vocabulary(sorted(found))
    if name == "bpe":
        beginning: list[str] = []
        for piece in _pieces(files):
            beginning.append(piece)
            if sum(map(len, beginning)) > _LEARNED_FROM:
                break
        return BPE.train("".join(beginning), 4096)
    if name.endswith(".json"):
        return BPE(name)
    raise unknown("tokeniser", name, (*TOKENISERS, "file.json"))


def _described(code: Tokeniser) -> dict[str, Any] | None:
    """What a manifest says of a tokeniser, from which it can be made again; None if it cannot."""
    if isinstance(code, BPE):
        return {"kind": "bpe", "json": code.model.to_str()}
    if isinstance(code, Bytes):
        return {"kind": "bytes"}
    return {"kind": "characters", "pieces": list(code.pieces)} if isinstance(code, Vocabulary) and code.kind == "character" else None


def _pixels(path: Path, size: int, grey: bool) -> np.ndarray[Any, Any]:
    """The levels of an image, (C, size, size)."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise GenmatchError("images need Pillow, which is not installed; run `pip install genmatch[data]`.") from None
    try:
        with Image.open(path) as image:
            cut = ImageOps.fit(ImageOps.exif_transpose(image).convert("L" if grey else "RGB"), (size, size))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise GenmatchError(f"`{path}` cannot be read as an image ({error}); remove or convert it.") from error
    levels = np.asarray(cut, dtype=np.uint8)
    return levels[None] if grey else levels.transpose(2, 0, 1)
