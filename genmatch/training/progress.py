"""How far a training is: a bar with the time that is left in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int, str], None]
"""Tells of a step: its number, and a word on it."""

_PAUSE = 10.0
"""Seconds between two plain lines at least."""


@contextmanager
def shown(label: str, total: int, done: int = 0) -> Iterator[Advance]:
    """A function to call after each step, which shows progress on standard error.

    Args:
        label: what is going on.
        total: steps in all.
        done: those of an earlier time.
    """
    if not sys.stderr.isatty():
        yield _Lines(label, total, done)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[word]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, completed=done, word="")
        yield lambda step, word: bar.update(task, completed=step, word=word)


class _Lines:
    """A line now and then, for logs."""

    def __init__(self, label: str, total: int, done: int) -> None:
        self.label, self.total, self.done = label, total, done
        self.start = self.last = time.monotonic()

    def __call__(self, step: int, word: str) -> None:
        now = time.monotonic()
        if now - self.last < _PAUSE or step <= self.done:
            return
        self.last = now
        left = (now - self.start) / (step - self.done) * (self.total - step)
        print(f"{self.label}: step {step} of {self.total}, {word}, {clock(left)} left", file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """A duration to read.

    Example:
        >>> clock(7), clock(75), clock(3700)
        ('0:07', '1:15', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
