"""`serve`: the live page."""

from __future__ import annotations

from pathlib import Path

import click

from genmatch.cli.group import main


@main.command(
    short_help="Open a live page: text, processes, reports.",
    examples=["genmatch serve", "genmatch serve --checkpoint runs/book --port 8080", "genmatch serve --runs runs"],
)
@click.option("--checkpoint", "checkpoints", multiple=True, type=click.Path(path_type=Path), help="Folder of a run on text; repeat for more.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder whose reports are shown.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; only this machine reaches the default.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option("--jobs", type=int, default=4, show_default=True, help="Texts and processes drawn at once.")
@click.option("--seconds", type=float, default=60.0, show_default=True, help="Time after which one is stopped.")
def serve(checkpoints: tuple[Path, ...], runs: Path, host: str, port: int, jobs: int, seconds: float) -> None:
    """Open a live page: text token by token, processes side by side, reports.

    It comes with a model of text, and fetches nothing from elsewhere. Stop it with Ctrl-C.
    """
    from genmatch.serve.run import serve

    serve(checkpoints, runs=runs, host=host, port=port, jobs=jobs, seconds=seconds, say=click.echo)
