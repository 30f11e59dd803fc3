"""Ctrl-C and SIGTERM as a wish to stop: the step at hand is finished and saved first."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupts:
    """Notes the first signal, and lets the second one through; only in the main thread, where signals can be caught.

    Args:
        caught: whether signals are caught at all.

    Attributes:
        received: the number of the signal, 0 if there was none.
    """

    def __init__(self, caught: bool) -> None:
        self.caught = caught and threading.current_thread() is threading.main_thread()
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if self.caught:
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self.__exit__()


def stop(number: int) -> BaseException:
    """What ends a program that was asked to stop by that signal: as Python's own handlers would, by an exception that says so."""
    return SystemExit(128 + number) if number == signal.SIGTERM else KeyboardInterrupt()
