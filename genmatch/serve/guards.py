"""What stands between the network and the routes: sizes of bodies, names of hosts, headers, and errors that name their field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genmatch.errors import GenmatchError
from genmatch.serve.jobs import Busy

PAGE_POLICY = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The page loads from its server alone, and no script stands in it."""

REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; img-src data:; media-src data:; font-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; frame-ancestors 'self'"
)
"""A report is one file that needs nothing else, and gets nothing else: it cannot reach the server that shows it."""


class WrongField(GenmatchError):
    """A wrong input, and the field that it stands in; `message` says what is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@contextmanager
def field(name: str) -> Iterator[None]:
    """Says of errors in its block which field of the request they are about.

    Raises:
        WrongField: for each `GenmatchError` in the block.
    """
    try:
        yield
    except WrongField:
        raise
    except GenmatchError as error:
        raise WrongField(name, str(error)) from error


class BodyLimit:
    """Refuses bodies above a size, whether they say their length or not.

    Args:
        app: what they would reach.
        size: bytes.
    """

    def __init__(self, app: ASGIApp, size: int) -> None:
        self.app, self.size = app, size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
            if len(body) > self.size:
                content = {"detail": [{"loc": ["body"], "msg": f"a request may have {self.size} bytes, and this one has more.", "type": "too_large"}]}
                await JSONResponse(content, 413, headers={"connection": "close"})(scope, receive, send)
                return
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, again, send)


class Headers:
    """Adds headers to answers that do not have them.

    Args:
        app: what answers.
        headers: by name.
    """

    def __init__(self, app: ASGIApp, headers: dict[str, str]) -> None:
        self.app, self.headers = app, [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def adding(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(header for header in self.headers if header[0] not in there)]
            await send(message)

        await self.app(scope, receive, adding)


def handle_errors(app: FastAPI) -> None:
    """Makes answers of errors: in the form of FastAPI's own, so that there is one form only."""

    @app.exception_handler(WrongField)
    def wrong_field(_: Request, error: WrongField) -> Response:
        return _refused([{"loc": ["body", error.field], "msg": str(error), "type": "genmatch"}])

    @app.exception_handler(GenmatchError)
    def wrong(_: Request, error: GenmatchError) -> Response:
        return _refused([{"loc": ["body"], "msg": str(error), "type": "genmatch"}])

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> Response:
        # Without what was found: it may be what JSON cannot say.
        return _refused([{"loc": _printable(part["loc"]), "msg": part["msg"], "type": part["type"]} for part in error.errors()])

    @app.exception_handler(Busy)
    def busy(_: Request, error: Busy) -> JSONResponse:
        content = {"detail": [{"loc": [], "msg": "as many jobs run as this server takes at once; try again in a second.", "type": "busy"}]}
        return JSONResponse(content, 429, headers={"Retry-After": "1"})


def _printable(place: Any) -> list[Any]:
    return [part if isinstance(part, int) else str(part) for part in place]


def _refused(detail: list[dict[str, Any]]) -> Response:
    # In ASCII: half a surrogate pair is text to Python, and not to UTF-8.
    return Response(json.dumps({"detail": detail}), 422, media_type="application/json")
