"""Named runs: a process family, a data set, a network and a budget, trained into a folder and loaded from it.

A folder holds `model.safetensors`, the averaged weights, and `run.json`, the settings and what training saw; no pickle.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from genmatch import data as data_sets
from genmatch import processes
from genmatch.data import DataSet, View
from genmatch.errors import GenmatchError
from genmatch.fetching import some
from genmatch.files import read_json, write_bytes, write_json, write_tensors, writing_to
from genmatch.options import write_config
from genmatch.paths import Path as ConditionalPath
from genmatch.processes import MarkovProcess
from genmatch.registry import networks
from genmatch.reprs import described
from genmatch.settings import FREE, Plan, RunSettings
from genmatch.solvers import Solver
from genmatch.spaces import Categorical, Euclidean, Grid, ProductSpace, Space, Sphere
from genmatch.training import train
from genmatch.training.engine import default_device, is_first_process

_PACKAGED = Path(data_sets.__file__).parent / "checkpoints"
_DROPPED = 0.1
"""The share of data points whose label a network that is told labels does not see."""

_SMALL_SPACES: list[Space] = [
    Euclidean((2,)),
    Categorical((2,), 3),
    Sphere(2),
    ProductSpace(place=Euclidean((2,)), word=Categorical((2,), 3)),
    Grid((2,), [-1.0, 0.0, 1.0]),
]
"""One of each kind, for checks of a family that is given no data."""

_OTHERS: dict[type, tuple[str, str]] = {
    Space: ("a space", " To use a space, name a process on a path in it, e.g. a function that returns `gm.Flow(path)`."),
    ConditionalPath: ("a path", " To use a path, name a process that follows it, e.g. a function that returns `gm.Flow(path)`."),
    Solver: ("a solver", " `gm.check_solver` checks a solver, and `genmatch explain` explains it."),
    DataSet: ("a data set", " `--data` takes a data set."),
}
"""What may be named where a process should be: what it is, and what is done with it instead."""


@dataclass(frozen=True)
class Run:
    """A trained run, ready to sample.

    Attributes:
        settings: what defines it.
        process: the process.
        view: the view of the data that it models.
        model: the network with the averaged weights.
        history: what training saw: `seconds`, `losses` (thinned) and `validation`.
    """

    settings: RunSettings
    process: MarkovProcess
    view: View
    model: torch.nn.Module
    history: dict[str, Any]

    __repr__ = described


def fit_view(family: str, data: DataSet) -> tuple[MarkovProcess, View]:
    """The process of that family on the first view of the data that it fits.

    Raises:
        GenmatchError: if it fits none, with the reason for each.
    """
    make = processes.get(family)
    reasons: dict[str, GenmatchError] = {}
    for view in data.views:
        try:
            process = _made(make, view.space, family)
        except GenmatchError as error:
            reasons[f"{view.name}: {error}".rstrip(".")] = error
            continue
        process.data_space.validate(some(view.train), f"the view {view.name}")
        return process, view
    found = f"the process `{family}` fits no view of the data set {data.name}: {'; '.join(reasons)}"
    raise GenmatchError(f"{found}. `genmatch list --fits` tells what fits what.") from [*reasons.values()][-1]


def find_process(name: str, data: str | None = None) -> MarkovProcess:
    """A process by name: a process itself, a function without arguments that makes one, or a family.

    A family is made on the first space that it fits, of the views of `data`, or of small spaces of each kind.

    Raises:
        GenmatchError: if the name stands for nothing of the kind, or the family fits no space.
    """
    thing = processes.get(name)
    if isinstance(thing, MarkovProcess):
        return thing
    _check_family(thing, name)
    if not inspect.signature(thing).parameters:
        return _made(lambda _: thing(), None, name)
    spaces = [view.space for view in data_sets.get(data).views] if data else _SMALL_SPACES
    reasons: dict[str, GenmatchError] = {}
    for space in spaces:
        try:
            return _made(thing, space, name)
        except GenmatchError as error:
            reasons[str(error).rstrip(".")] = error
    hint = "`genmatch list --fits` tells what fits what." if data else "Name a data set that it fits with `--data`, if that is not a mistake in it."
    raise GenmatchError(f"the process `{name}` fits none of the spaces: {'; '.join(reasons)}. {hint}") from [*reasons.values()][-1]


def _check_family(thing: Any, name: str) -> None:
    """Refuses what is no family on any space, so that it is said once and not for each space."""
    kind = thing if isinstance(thing, type) else type(thing)
    if not callable(thing) or issubclass(kind, tuple(_OTHERS)):
        raise _no_process(kind, f"`{name}` is")
    if inspect.isabstract(thing):
        raise GenmatchError(f"`{name}` does not define {', '.join(f'`{method}`' for method in sorted(thing.__abstractmethods__))}, which a process must.")
    try:
        signature = inspect.signature(thing)
    except ValueError:  # some callables written in C have none
        return
    try:
        signature.bind(*[None] * min(1, len(signature.parameters)))
    except TypeError:
        raise GenmatchError(f"`{name}` must take the space of the data and nothing else, got `{name}{signature}`; give the others defaults.") from None


def _no_process(kind: type, what: str) -> GenmatchError:
    """The error for something else where a process should be."""
    is_what, instead = next((words for base, words in _OTHERS.items() if issubclass(kind, base)), (f"something of type {kind.__name__}", ""))
    return GenmatchError(
        f"{what} {is_what}; expected a process, a function without arguments that makes one, or a family: a class or function that takes the "
        f"space of the data and returns a process.{instead}"
    )


def _made(make: Callable[[Any], Any], space: Any, name: str) -> MarkovProcess:
    try:
        made = make(space)
        if not isinstance(made, MarkovProcess):
            raise _no_process(type(made), f"`{name}` makes")
        _ = made.output_shape
        made.path.source(1, rng=torch.Generator())  # a process that does not fit its space says so here at the latest
    except (TypeError, AttributeError) as error:
        raise GenmatchError(f"`{name}` cannot make a process: {type(error).__name__}: {error}.") from error
    return made


def labels_of(settings: RunSettings | Plan, data: DataSet) -> dict[str, int] | None:
    """The number of classes of each label that the network is told, by name; None if it is told none.

    Raises:
        GenmatchError: if it should be, and the data have no labels.
    """
    if not settings.condition:
        return None
    if data.labels is None:
        raise GenmatchError(f"`condition` needs data with labels, and {data.name} has none; leave it out, or take e.g. digits.")
    return {"label": int(torch.cat(data.labels).max()) + 1}


def build_network(settings: RunSettings, process: MarkovProcess, labels: Mapping[str, int] | None = None) -> torch.nn.Module:
    """A fresh network for the process, with weights from the seed; the global random state is left alone.

    Raises:
        GenmatchError: if the network cannot be what the process asks for, or is none.
    """
    if lacking := lacks(settings.network, process):
        raise GenmatchError(
            f"{process} needs a network with {lacking}, which `{settings.network}` does not offer; pass network='transformer' (`--network transformer`)."
        )
    make = networks.get(settings.network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = make(process.space, process.output_shape, width=settings.width, depth=settings.depth, labels=labels, **process.network)
    if not isinstance(network, torch.nn.Module):
        raise GenmatchError(f"`{settings.network}` must make a torch.nn.Module, called as network(x, t, **condition), got {type(network).__name__}.")
    return network


def lacks(network: str, process: MarkovProcess) -> str:
    """What the process asks of a network and the one of that name does not offer, in words; empty if nothing.

    Raises:
        GenmatchError: if there is no such network, or it does not take what every network is made from.
    """
    offered = _keywords(network)
    return ", ".join(f"{name}={value}" for name, value in process.network.items() if not {name, "**"} & offered)


def _keywords(network: str) -> set[str]:
    """The keywords that a network is made from, with "**" if it takes any."""
    make = networks.get(network)
    try:
        signature = inspect.signature(make)
        signature.bind("space", "shape", width=1, depth=1, labels=None)
    except TypeError as error:
        raise GenmatchError(
            f"`{network}` must be a class or function that makes a network from (space, output_shape, *, width, depth, labels), got {make!r}: {error}."
        ) from None
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    return {*signature.parameters, *(["**"] if inspect.Parameter.VAR_KEYWORD in kinds else [])}


def train_run(
    settings: RunSettings, folder: Path, *, data: DataSet | None = None, progress: bool = False, label: str = "training", every: int = 500, keep: int = 2
) -> Run:
    """Trains a run and writes it to `folder`; a finished run with the same settings is loaded, a stopped one goes on.

    Beside the run stand `settings.toml`, all its settings, `metrics.jsonl`, a line a step, and `checkpoints`.

    Raises:
        GenmatchError: if the settings do not fit, or the folder holds a run with other settings.
    """
    data = data or data_sets.get(settings.data)
    process, view = fit_view(settings.process, data)
    labels = labels_of(settings, data)
    if is_finished(folder, settings):
        return load_run(folder, data=data)
    told = [dict.fromkeys(labels or (), split) for split in data.labels or (None, None)]
    model = build_network(settings, process, labels).to(default_device())
    with _settings_beside(folder, settings):
        result = train(
            process,
            model,
            (view.train, told[0]),
            **{"objective": process.objective, **settings.training},
            validation=(view.test, told[1]),
            drop_condition=_DROPPED if labels else 0.0,
            validate_every=max(1, settings.steps // 10),
            progress=progress,
            label=label,
            checkpoint=folder / "checkpoints",
            every=every,
            keep=keep,
            resume=True,
            metrics=folder / "metrics.jsonl",
        )
    thinned = max(1, len(result.losses) // 200)
    history = {"seconds": result.seconds, "losses": result.losses[::thinned], "validation": result.validation}
    model = result.model.cpu()
    if is_first_process():
        write_tensors(folder / "model.safetensors", model.state_dict())
        # Written last: a folder with run.json is a finished run.
        write_json(folder / "run.json", {"settings": asdict(settings), "process": repr(process), "view": view.name, "history": history})
    return Run(settings, process, view, model, history)


@contextmanager
def _settings_beside(folder: Path, settings: RunSettings) -> Iterator[None]:
    """Writes `settings.toml`; where the run refuses them, such as for another number of steps, those that it was begun with come back."""
    place = folder / "settings.toml"
    before = place.read_bytes() if place.exists() else None
    if is_first_process():
        with writing_to(folder, "a run"):
            write_bytes(place, write_config(asdict(settings), "train"))
    try:
        yield
    except GenmatchError:
        if before is not None and is_first_process():
            write_bytes(place, before)
        raise


def is_finished(folder: Path, settings: RunSettings) -> bool:
    """Whether `folder` holds a finished run with these settings.

    Raises:
        GenmatchError: if it holds one with others, and which they are.
    """
    if not (folder / "run.json").exists():
        return False
    found = read_json(folder / "run.json").get("settings", {})
    wanted = asdict(settings)
    # A run of before a setting was there has its default.
    found = {name: found.get(name, getattr(RunSettings, name, None)) for name in wanted}
    if changed := [f"{name}={found[name]!r} (now {wanted[name]!r})" for name in wanted if name not in FREE and found[name] != wanted[name]]:
        raise GenmatchError(f"`{folder}` holds a finished run with {', '.join(changed)}; choose another --out, or delete that folder.")
    return True


def packaged() -> dict[str, Path]:
    """The runs that come with the package: folders by name."""
    return {place.parent.name: place.parent for place in sorted(_PACKAGED.glob("*/run.json"))}


def find_run(folder: Path) -> Path:
    """The folder of a finished run: that folder, or one that comes with the package under this name.

    Raises:
        GenmatchError: if there is neither.
    """
    if (folder / "run.json").exists():
        return folder
    if str(folder) in packaged():
        return packaged()[str(folder)]
    raise GenmatchError(f"`{folder}` holds no finished run (no run.json); {_instead(folder)}.")


def _instead(folder: Path) -> str:
    """What to do about a folder that holds no finished run."""
    if inside := sorted(str(place.parent) for place in folder.glob("*/run.json")):
        return f"it holds {', '.join(f'`{place}`' for place in inside)}: take one of these"
    if (folder.parent / "run.json").exists():
        return f"a run is a whole folder: take `{folder.parent}`"
    if (folder / "settings.toml").exists():
        return f"its training was stopped: go on with `genmatch train {folder / 'settings.toml'} --out {folder}`"
    return f"make one with `genmatch train --process mask --out {folder}`, or take one that comes with the package: {', '.join(packaged())}"


def load_run(folder: Path, *, data: DataSet | None = None) -> Run:
    """Loads a finished run, from a folder or by the name of one that comes with the package.

    Raises:
        GenmatchError: if there is none, or its weights do not fit.
    """
    folder = find_run(folder)
    saved = read_json(folder / "run.json")
    try:
        settings = RunSettings(**saved["settings"])
    except (KeyError, TypeError) as error:
        raise GenmatchError(f"`{folder / 'run.json'}` is not a run of this version ({error}); train it again.") from error
    data = data or data_sets.get(settings.data)
    process, view = fit_view(settings.process, data)
    model = build_network(settings, process, labels_of(settings, data))
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise GenmatchError(f"the weights in `{folder}` cannot be loaded ({error}); train it again.") from error
    return Run(settings, process, view, model.eval(), saved["history"])
