"""Starts the server of the live page. Nothing heavy is imported before it is known to be installed."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from genmatch.errors import GenmatchError

_CONNECTIONS = 256
"""Above these the server refuses at once, so that memory stays bounded."""


def serve(
    checkpoints: Sequence[Path] = (),
    *,
    runs: Path = Path("runs"),
    host: str = "127.0.0.1",
    port: int = 8000,
    jobs: int = 4,
    seconds: float = 60.0,
    say: Callable[[str], Any] = print,
) -> None:
    """Serves the page until it is interrupted.

    Args:
        checkpoints: folders of runs on text, beside the one that comes with the package.
        runs: the folder whose reports are shown.
        host: the address to listen on.
        port: the port; 0 takes a free one.
        jobs: texts and processes drawn at once.
        seconds: after which one is stopped.
        say: is told the address, once it answers.

    Raises:
        GenmatchError: if the packages are missing, a checkpoint does not fit, or the port is taken.
    """
    require_server()
    import torch
    import uvicorn

    from genmatch.serve.app import create_app, hosts_for
    from genmatch.serve.limits import Limits

    app = create_app(checkpoints, runs=runs, limits=Limits(jobs=jobs, seconds=seconds), hosts=hosts_for(host))
    # Jobs run beside each other, a thread each: threads within them would only wait for each other.
    torch.set_num_threads(1)
    with _listening(host, port) as listening:
        address = f"[{host}]" if ":" in host else host
        say(f"genmatch: http://{address}:{listening.getsockname()[1]}  (Ctrl-C ends it)")
        settings: dict[str, Any] = {"timeout_graceful_shutdown": 2, "timeout_keep_alive": 60, "server_header": False}
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", limit_concurrency=_CONNECTIONS, **settings))
        server.run(sockets=[listening])


def require_server() -> None:
    """Raises `GenmatchError` unless the packages of the server are installed."""
    if missing := [package for package in ("fastapi", "uvicorn") if importlib.util.find_spec(package) is None]:
        raise GenmatchError(f"the page needs {' and '.join(missing)}, which are not installed; run `pip install genmatch[serve]`.")


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_CONNECTIONS)
    except OSError as error:
        raise GenmatchError(f"cannot listen on {host}, port {port} ({error.strerror}); choose another with --port, or 0 for a free one.") from error
