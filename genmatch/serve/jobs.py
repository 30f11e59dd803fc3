"""Jobs: work in threads of its own, so that the loop of the server stays free; each can be stopped, and ends in time.

A job is an iterator of events, dictionaries that become lines of JSON. Between two of them it may be stopped: by its id, by the end of its
time, or because nobody listens any more.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from genmatch.errors import GenmatchError

Event = dict[str, Any]
_log = logging.getLogger(__name__)


class Busy(Exception):
    """As many jobs run as may; come back later."""


class Job:
    """Work that runs in a thread.

    Args:
        work: the events.
        seconds: after which it is stopped.

    Attributes:
        id: cannot be guessed.
    """

    def __init__(self, work: Iterator[Event], seconds: float) -> None:
        self.id = secrets.token_hex(8)
        self._work, self._seconds = work, seconds
        self._stopped = threading.Event()
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def stop(self) -> None:
        """Asks it to end before its next event."""
        self._stopped.set()

    def run(self) -> None:
        """Does the work, in a thread."""
        began = time.monotonic()
        try:
            self._tell({"event": "start", "job": self.id})
            for event in self._work:
                if self._stopped.is_set():
                    self._tell({"event": "stopped", "why": "stopped on request"})
                    return
                if time.monotonic() - began > self._seconds:
                    self._tell({"event": "stopped", "why": f"a job may take {self._seconds:g} s; ask for fewer steps, a shorter text or fewer particles"})
                    return
                self._tell(event)
            self._tell({"event": "end", "seconds": round(time.monotonic() - began, 4)})
        except GenmatchError as error:
            self._tell({"event": "error", "message": str(error)})
        except Exception:  # a thread has nobody else to tell
            _log.exception("a job failed")
            self._tell({"event": "error", "message": "this is a mistake of genmatch, not yours; the terminal of the server says more."})
        finally:
            self._work.close()  # type: ignore[attr-defined]
            self._tell(None)

    def _tell(self, event: Event | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)
        except RuntimeError:  # the server has ended
            self.stop()

    async def events(self) -> AsyncIterator[Event]:
        """The events as they come; who stops listening stops the job."""
        try:
            while (event := await self._queue.get()) is not None:
                yield event
        finally:
            self.stop()

    async def lines(self) -> AsyncIterator[bytes]:
        """The events as lines of JSON."""
        async for event in self.events():
            yield (json.dumps(event, separators=(",", ":"), allow_nan=False) + "\n").encode()


class Jobs:
    """The jobs of a server, a thread each.

    Args:
        limit: how many may run at once.
        seconds: how long each may take.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit, self.seconds = limit, seconds
        self._running: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(limit, thread_name_prefix="genmatch-job")

    def __len__(self) -> int:
        return len(self._running)

    def check(self) -> None:
        """Refuses a job before anything is done for it.

        Raises:
            Busy: if as many run as may.
        """
        if len(self._running) >= self.limit:
            raise Busy

    def start(self, work: Iterator[Event]) -> Job:
        """Starts a job; called from the loop.

        Raises:
            Busy: if as many run as may.
        """
        job = Job(work, self.seconds)
        with self._lock:
            if len(self._running) >= self.limit:
                raise Busy
            self._running[job.id] = job
        self._pool.submit(self._run, job)
        return job

    def stop(self, name: str) -> bool:
        """Stops the job of that id; False if none runs."""
        job = self._running.get(name)
        if job is not None:
            job.stop()
        return job is not None

    def close(self) -> None:
        """Stops all of them, and waits for their threads."""
        for job in list(self._running.values()):
            job.stop()
        self._pool.shutdown()

    def _run(self, job: Job) -> None:
        try:
            job.run()
        finally:
            with self._lock:
                del self._running[job.id]
