"""The server: routes of JSON and of streams, and the page in front of them."""

import ipaddress
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import anyio
from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware

import genmatch
from genmatch.errors import GenmatchError, unknown
from genmatch.runs import packaged
from genmatch.serve import particles
from genmatch.serve.guards import PAGE_POLICY, REPORT_POLICY, BodyLimit, Headers, WrongField, field, handle_errors
from genmatch.serve.jobs import Job, Jobs
from genmatch.serve.limits import Limits
from genmatch.serve.reports import Report, find_reports
from genmatch.serve.texts import Draft, Writer

_STATIC = Path(__file__).parent / "static"
_SEEDS = 2**53
"""Numbers that JavaScript can say exactly."""
_PIECES = 4096
_QUIET = 2.0
"""Seconds after which nobody seems to be waiting."""

_LINES: dict[int | str, dict[str, Any]] = {
    200: {"description": "One JSON object a line, as they come.", "content": {"application/x-ndjson": {"schema": {"type": "string"}}}}
}
_REFUSED: dict[int | str, dict[str, Any]] = {
    413: {"description": "The request is too large."},
    429: {"description": "As many jobs run as may; `Retry-After` says when to come back."},
}
_MISSING: dict[int | str, dict[str, Any]] = {404: {"description": "There is none."}}


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TokensRequest(_Request):
    """A text to be cut into tokens."""

    checkpoint: str = Field("text", max_length=200)
    text: str = Field(max_length=_PIECES)


def create_app(
    checkpoints: Sequence[Path] = (), *, runs: Path = Path("runs"), limits: Limits | None = None, hosts: Sequence[str] = ("127.0.0.1", "localhost", "[::1]")
) -> FastAPI:
    """The application.

    Args:
        checkpoints: folders of runs on text, beside those that come with the package; no request can name another folder.
        runs: the folder whose reports are shown.
        limits: what requests may ask for.
        hosts: names under which it answers: a page of another name cannot reach it through the browser. "*" for any.

    Raises:
        GenmatchError: if a checkpoint cannot be loaded or is not on text.
    """
    limits = limits or Limits()
    writers = _load(checkpoints)
    jobs = Jobs(limits.jobs, limits.seconds)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=_warm, args=(jobs,), daemon=True).start()
        yield
        jobs.close()

    app = FastAPI(
        title="genmatch",
        version=genmatch.__version__,
        description="Text token by token, processes side by side, reports of comparisons.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.jobs = jobs
    handle_errors(app)
    _add_page(app)
    _add_text(app, writers, jobs, limits)
    _add_processes(app, jobs, limits)
    _add_reports(app, runs)
    _add_jobs(app, jobs, limits)
    app.add_middleware(BodyLimit, size=limits.body)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    headers = {"content-security-policy": PAGE_POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store"}
    app.add_middleware(Headers, headers=headers)
    return app


def _warm(jobs: Jobs) -> None:
    """Loads the data sets, which takes a while, before somebody asks, and not while somebody waits for a text."""
    time.sleep(_QUIET)
    while len(jobs):
        time.sleep(_QUIET)
    particles.choices()


def hosts_for(host: str) -> list[str]:
    """The names under which a server on this address answers: any, where it listens on all addresses.

    Example:
        >>> hosts_for("127.0.0.1"), hosts_for("0.0.0.0")
        (['127.0.0.1', 'localhost', '[::1]'], ['*'])
    """
    try:
        everywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        everywhere = False
    return ["*"] if everywhere else list(dict.fromkeys([host, "127.0.0.1", "localhost", "[::1]"]))


def _load(checkpoints: Sequence[Path]) -> dict[str, Writer]:
    writers = {name: Writer.load(folder, name) for name, folder in packaged().items()}
    for folder in checkpoints:
        name, number = folder.resolve().name, 2
        while name in writers:
            name, number = f"{folder.resolve().name}-{number}", number + 1
        writers[name] = Writer.load(folder, name)
    return writers


def _writer(writers: Mapping[str, Writer], name: str) -> Writer:
    if name not in writers:
        raise WrongField("checkpoint", str(unknown("checkpoint", name, writers)))
    return writers[name]


def _add_page(app: FastAPI) -> None:
    app.mount("/static", StaticFiles(directory=_STATIC), name="static")
    for path, file in (("/", "index.html"), ("/api", "api.html")):

        @app.get(path, include_in_schema=False)
        def page(file: str = file) -> FileResponse:
            return FileResponse(_STATIC / file)

        del page


def _stream(job: Job) -> StreamingResponse:
    return StreamingResponse(job.lines(), media_type="application/x-ndjson", headers={"x-job": job.id, "x-accel-buffering": "no"})


def _add_text(app: FastAPI, writers: Mapping[str, Writer], jobs: Jobs, limits: Limits) -> None:
    class TextRequest(_Request):
        """A text to be written."""

        checkpoint: str = Field("text", max_length=200, description="A name from /api/checkpoints.")
        prompt: str = Field("", max_length=_PIECES, description="Stands at the beginning; each `_` is a free token.")
        at: list[Annotated[str, Field(max_length=_PIECES)]] = Field(default=[], max_length=64, description="What is known, by position: `0:Once,5:upon`.")
        keep: dict[int, int] = Field(default={}, max_length=limits.length, description="Tokens by position, below `prompt` and `at`.")
        length: int | None = Field(None, ge=1, le=limits.length, description="Tokens of the text; a window of the model by default.")
        steps: int = Field(64, ge=1, le=limits.steps, description="Of the solver, for each window.")
        solver: str | None = Field(None, max_length=100, description="Its name; the recommended one by default.")
        temperature: float = Field(1.0, gt=0, le=10, description="Divides the logits.")
        seed: int = Field(0, ge=0, lt=_SEEDS, description="Makes the text repeatable.")

    async def begin(request: TextRequest) -> Job:
        jobs.check()
        writer = _writer(writers, request.checkpoint)
        draft = await anyio.to_thread.run_sync(lambda: Draft.checked(writer, **request.model_dump(exclude={"checkpoint"})))
        return jobs.start(draft.events())

    @app.get("/api/checkpoints")
    def checkpoints() -> list[dict[str, Any]]:
        """The models that write."""
        return [
            {
                "name": w.name,
                "about": w.about,
                "window": w.window,
                "process": repr(w.process),
                "solvers": w.solvers,
                "length": limits.length,
                "steps": limits.steps,
            }
            for w in writers.values()
        ]

    @app.post("/api/tokens", responses=_REFUSED)
    def tokens(request: TokensRequest) -> list[tuple[int, str]]:
        """A text as tokens of a model, each with its text."""
        writer = _writer(writers, request.checkpoint)
        with field("text"):
            found = writer.read(request.text).tolist()
        return list(zip(found, writer.pieces(found), strict=True))

    @app.post("/api/text", response_class=StreamingResponse, responses={**_LINES, **_REFUSED})
    async def text(request: TextRequest) -> StreamingResponse:
        """Writes a text and says at each step which tokens are new: `[position, token, its text, confidence]`."""
        return _stream(await begin(request))

    @app.post("/api/text/whole", responses=_REFUSED)
    async def whole(request: TextRequest) -> dict[str, Any]:
        """Writes a text: its tokens and itself."""
        job = await begin(request)
        last: dict[str, Any] = {}
        async for event in job.events():
            last |= event
        if "text" not in last:
            raise GenmatchError(str(last.get("message", last.get("why"))))
        return {name: last[name] for name in ("tokens", "text", "seconds")}


def _add_processes(app: FastAPI, jobs: Jobs, limits: Limits) -> None:
    class ProcessRequest(_Request):
        """A process to be watched."""

        data: str = Field("checkerboard", max_length=100, description="A data set of /api/processes.")
        process: str = Field("flow", max_length=100, description="A family that fits it.")
        n: int = Field(200, ge=1, le=limits.particles, description="Particles.")
        steps: int = Field(48, ge=1, le=limits.steps, description="Of the solver.")
        solver: str | None = Field(None, max_length=100, description="Its name; the recommended one by default.")
        seed: int = Field(0, ge=0, lt=_SEEDS, description="Makes it repeatable.")
        towards: int = Field(0, ge=0, lt=_SEEDS, description="Which data point the conditional path leads to.")

    @app.get("/api/processes")
    def processes() -> dict[str, Any]:
        """Data sets, the shape of their points, and the families that fit each."""
        return particles.choices()

    @app.post("/api/process", response_class=StreamingResponse, responses={**_LINES, **_REFUSED})
    async def process(request: ProcessRequest) -> StreamingResponse:
        """Carries particles from noise to data with the exact network, and says at each time where they are and what moves them."""
        jobs.check()
        scene = await anyio.to_thread.run_sync(lambda: particles.Scene.made(request.data, request.process, request.solver))
        return _stream(jobs.start(scene.events(**request.model_dump(exclude={"data", "process", "solver"}))))


def _add_reports(app: FastAPI, runs: Path) -> None:
    def report_of(name: str) -> Report:
        reports = find_reports(runs)
        if name not in reports:
            raise HTTPException(404, "there is no such report")
        return reports[name]

    @app.get("/api/reports")
    def reports() -> list[dict[str, Any]]:
        """The reports of comparisons, the newest first."""
        return [report.summary() for report in find_reports(runs).values()]

    @app.get("/api/results/{name:path}", responses=_MISSING)
    def results(name: str) -> dict[str, Any]:
        """The numbers of a report."""
        return report_of(name).results

    @app.get("/report/{name:path}", response_class=FileResponse, responses=_MISSING)
    def report(name: str) -> FileResponse:
        """The page of a report."""
        return FileResponse(report_of(name).page, media_type="text/html", headers={"content-security-policy": REPORT_POLICY})


def _add_jobs(app: FastAPI, jobs: Jobs, limits: Limits) -> None:
    @app.get("/api/jobs")
    def running() -> dict[str, Any]:
        """How many jobs run, and how many may."""
        return {"running": len(jobs), "limit": limits.jobs, "seconds": limits.seconds}

    @app.delete("/api/jobs/{job}", responses=_MISSING, status_code=204)
    async def stop(job: str) -> None:
        """Stops a job before its next step."""
        if not jobs.stop(job):
            raise HTTPException(404, "no such job runs")
