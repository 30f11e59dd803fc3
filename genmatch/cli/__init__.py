"""The command line. torch is imported by the commands that need it, so that help and lists answer at once."""

from genmatch.cli import comparing, names, preparing, runs, serving
from genmatch.cli.group import main

__all__ = ["comparing", "main", "names", "preparing", "runs", "serving"]
