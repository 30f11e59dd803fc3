"""Metrics of a run as JSON lines, one a step, which a resumed run goes on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

from genmatch.errors import GenmatchError
from genmatch.files import write_bytes


class Journal:
    """A file of JSON lines with an increasing `step`.

    Args:
        path: the file; None keeps no journal.
        start: steps that were done before: later lines, of a run that was killed after its last checkpoint, are dropped.

    Raises:
        GenmatchError: if the file cannot be written.
    """

    def __init__(self, path: Path | None, start: int) -> None:
        self.path = path
        self._file: TextIO | None = None
        if path is None:
            return
        try:
            kept = [line for line in path.read_bytes().splitlines() if _step(line) <= start] if start and path.exists() else []
            write_bytes(path, b"".join(line + b"\n" for line in kept))
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise GenmatchError(f"metrics cannot be written to `{path}` ({error}); choose another place.") from error

    def write(self, **values: Any) -> None:
        """Adds a line."""
        self._try(lambda file: file.write(json.dumps(values) + "\n"))

    def flush(self) -> None:
        """Hands the lines to the operating system."""
        self._try(lambda file: file.flush())

    def close(self) -> None:
        """Writes what is left."""
        self._try(lambda file: file.close())
        self._file = None

    def _try(self, action: Any) -> None:
        if self._file is None:
            return
        try:
            action(self._file)
        except OSError as error:
            raise GenmatchError(f"metrics cannot be written to `{self.path}` ({error}); free space, and start again: it goes on from there.") from error


def _step(line: bytes) -> float:
    """The step of a line; beyond all for half a line."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
