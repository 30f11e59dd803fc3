"""Solvers by name, and which of them fit a process."""

from __future__ import annotations

from genmatch.errors import GenmatchError
from genmatch.processes.base import MarkovProcess
from genmatch.registry import solvers as _registry
from genmatch.solvers.base import Solver

names = _registry.names
register = _registry.register


def get(solver: str | Solver) -> Solver:
    """The solver of that name with its default settings; a `Solver` is returned as it is.

    Raises:
        GenmatchError: if the name is unknown, or stands for something else.
    """
    made = _registry.get(solver)() if isinstance(solver, str) else solver
    if not isinstance(made, Solver):
        if isinstance(made, type) and issubclass(made, Solver):
            raise GenmatchError(f"`solver` must be a name or a Solver, got the class {made.__name__}; pass an instance, `{made.__name__}()`.")
        raise GenmatchError(f"`solver` must be a name or a Solver, got {solver!r}; known names: {', '.join(names())}.")
    return made


def available(process: MarkovProcess) -> list[str]:
    """Names of the solvers that fit `process`, the recommended one first.

    Example:
        >>> import genmatch as gm
        >>> gm.solvers.available(gm.CTMC(gm.paths.Mixture((3,), vocab_size=5)))[:4]
        ['exact', 'euler', 'algorithm7', 'tau-leaping']
    """
    fitting = [name for name in names() if get(name).misfit(process) is None]
    return sorted(fitting, key=lambda name: name != process.solver)


def resolve(process: MarkovProcess, solver: str | Solver | None) -> Solver:
    """The solver to use for `process`: the given one, or the recommended one for None.

    Raises:
        GenmatchError: if it does not fit; the message lists those that do.
    """
    chosen = get((available(process) or ["euler"])[0] if solver is None else solver)
    reason = chosen.misfit(process)
    if reason is not None:
        raise GenmatchError(f"{reason}; solvers that fit: {', '.join(available(process)) or 'none'}.")
    return chosen


__all__ = ["Solver", "available", "get", "names", "register", "resolve"]
