"""genmatch: generative modelling with arbitrary Markov processes.

Names are imported when they are first used, so that `import genmatch` and the command line answer at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from genmatch import (
        checks,
        compare,
        data,
        destinations,
        generators,
        guidance,
        hf,
        nn,
        paths,
        plot,
        processes,
        recipes,
        schedules,
        solvers,
        spaces,
        tensors,
        testing,
    )
    from genmatch.checks import check_process, check_solver
    from genmatch.editing import edit
    from genmatch.errors import GenmatchError
    from genmatch.grids import time_grid
    from genmatch.likelihood import elbo, log_likelihood
    from genmatch.marginal import conditional_generator, marginal_generator, oracle
    from genmatch.paths import couplings
    from genmatch.processes import CTMC, Diffusion, Flow, JumpProcess, Langevin, LevelFlow, MarkovProcess, Product, Superposition
    from genmatch.sampling import sample, simulate, stream
    from genmatch.sharpening import sharpen
    from genmatch.training import train

_HOMES = {
    "CTMC": "processes",
    "Diffusion": "processes",
    "Flow": "processes",
    "GenmatchError": "errors",
    "JumpProcess": "processes",
    "Langevin": "processes",
    "LevelFlow": "processes",
    "MarkovProcess": "processes",
    "Product": "processes",
    "Superposition": "processes",
    "check_process": "checks",
    "check_solver": "checks",
    "conditional_generator": "marginal",
    "couplings": "paths",
    "edit": "editing",
    "elbo": "likelihood",
    "log_likelihood": "likelihood",
    "marginal_generator": "marginal",
    "oracle": "marginal",
    "sample": "sampling",
    "sharpen": "sharpening",
    "simulate": "sampling",
    "stream": "sampling",
    "time_grid": "grids",
    "train": "training",
}
_MODULES = (
    "checks",
    "compare",
    "data",
    "destinations",
    "generators",
    "guidance",
    "hf",
    "nn",
    "paths",
    "plot",
    "processes",
    "recipes",
    "schedules",
    "solvers",
    "spaces",
    "tensors",
    "testing",
)

__all__ = [
    "CTMC",
    "Diffusion",
    "Flow",
    "GenmatchError",
    "JumpProcess",
    "Langevin",
    "LevelFlow",
    "MarkovProcess",
    "Product",
    "Superposition",
    "check_process",
    "check_solver",
    "checks",
    "compare",
    "conditional_generator",
    "couplings",
    "data",
    "destinations",
    "edit",
    "elbo",
    "generators",
    "guidance",
    "hf",
    "log_likelihood",
    "marginal_generator",
    "nn",
    "oracle",
    "paths",
    "plot",
    "processes",
    "recipes",
    "sample",
    "schedules",
    "sharpen",
    "simulate",
    "solvers",
    "spaces",
    "stream",
    "tensors",
    "testing",
    "time_grid",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"genmatch.{name}")
    if name in _HOMES:
        value = getattr(importlib.import_module(f"genmatch.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'genmatch' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
