"""What one request, and all of them together, may ask of the machine. Nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass, fields

from genmatch.errors import number_in


@dataclass(frozen=True)
class Limits:
    """Limits of the server.

    Attributes:
        body: bytes of a request.
        length: tokens of a text.
        steps: steps of a solver, for each window of a text.
        particles: samples of a process.
        jobs: jobs at once; a further one is told to come back.
        seconds: time of a job, after which it is stopped.

    Raises:
        GenmatchError: if one of them is not positive.

    Example:
        >>> Limits(jobs=2).steps
        256
    """

    body: int = 65_536
    length: int = 512
    steps: int = 256
    particles: int = 400
    jobs: int = 4
    seconds: float = 60.0

    def __post_init__(self) -> None:
        for field in fields(self):
            number_in("(0, inf]", getattr(self, field.name), field.name, f"{field.default} is the default")
