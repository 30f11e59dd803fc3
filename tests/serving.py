"""A server of the live page in a thread, on a free port, for tests that need a socket."""

import contextlib
import json
import threading
import time

import uvicorn

from genmatch.serve import create_app


@contextlib.contextmanager
def serving(**arguments):
    app = create_app(**arguments)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", app.state.jobs
    finally:
        server.should_exit = True
        thread.join()


def events(text):
    return [json.loads(line) for line in text.splitlines()]


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)
