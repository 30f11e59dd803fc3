"""Names of processes, solvers, data sets and networks, and where they are defined.

A built-in name is a line of a table below; another package adds its own through an entry point in the group
`genmatch.processes`, `genmatch.solvers`, `genmatch.data` or `genmatch.networks`; a session adds one with `register`. Anything else is named
`package.module:Name`. Nothing is imported before it is used, so that listing the names costs nothing.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from genmatch.errors import GenmatchError, unknown

T = TypeVar("T")


class Registry:
    """The names of one kind of thing.

    Args:
        kind: what it holds, in the singular, for messages.
        plural: the same in the plural.
        group: the entry points of other packages that add to it.
        builtin: names of this package, as `module:Name`.
    """

    def __init__(self, kind: str, plural: str, group: str, builtin: Mapping[str, str]) -> None:
        self.kind = kind
        self.plural = plural
        self.group = group
        self._builtin = dict(builtin)
        self._registered: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"Registry({len(self.names())} {self.plural}: {', '.join(self.names())})"

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that makes something known under `name` in this session.

        Raises:
            GenmatchError: if the name is taken by something else.
        """

        def add(thing: T) -> T:
            previous = self._registered.get(name)
            moved = previous is not None and getattr(previous, "__qualname__", previous) != getattr(thing, "__qualname__", thing)
            if name in self._builtin or name in self._plugins() or moved:
                raise GenmatchError(f"the {self.kind} name `{name}` is taken; choose another.")
            self._registered[name] = thing
            return thing

        return add

    def _plugins(self) -> dict[str, importlib.metadata.EntryPoint]:
        return installed(self.group, tuple(sys.path))

    def names(self) -> list[str]:
        """All names: built-in ones first, in their order."""
        return list(dict.fromkeys([*self._builtin, *self._plugins(), *self._registered]))

    def check(self, name: str) -> None:
        """Raises `GenmatchError`, with the near names, for what is neither a registered name nor written as `package.module:Name`; imports nothing."""
        if name not in self.names() and ":" not in name:
            raise GenmatchError(f"{unknown(self.kind, name, self.names())} {self._elsewhere(name)}")

    def get(self, name: str) -> Any:
        """What `name` stands for: a registered name, or `package.module:Name`.

        Raises:
            GenmatchError: if there is no such name, with the near ones.
        """
        if name in self._registered:
            return self._registered[name]
        if name in self._builtin:
            return load(self._builtin[name])
        if name in self._plugins():
            return load(self._plugins()[name].value)
        self.check(name)
        return load(name)

    def _elsewhere(self, name: str) -> str:
        """Where a name that is not known here may be found."""
        kinds = [other.kind for other in (processes, paths, solvers, data, networks) if other is not self and name in other.names()]
        return f"There is a {' and a '.join(kinds)} of that name." if kinds else "One of your own is package.module:Name."

    def describe(self) -> dict[str, tuple[str, str]]:
        """For each name, its first line of documentation and where it is defined; read from source, not imported."""
        places = {name: (target, "genmatch") for name, target in self._builtin.items()}
        for name, point in self._plugins().items():
            places.setdefault(name, (point.value, point.dist.name if point.dist else "?"))
        lines = {name: (_first_line(target), package) for name, (target, package) in places.items()}
        for name, thing in self._registered.items():
            lines[name] = ((thing.__doc__ or "").strip().split("\n")[0], thing.__module__)
        return lines


@functools.cache
def installed(group: str, places: tuple[str, ...]) -> dict[str, importlib.metadata.EntryPoint]:
    """The entry points of a group, by name; they are looked for once, as a look takes longer than a step of a sampler.

    Args:
        group: such as "genmatch.solvers".
        places: where packages are, `sys.path`: they are looked for again when it has changed.
    """
    return {point.name: point for point in importlib.metadata.entry_points(group=group)}


def load(target: str) -> Any:
    """Imports `package.module:Name`; the working directory counts as a place for modules.

    Raises:
        GenmatchError: if the module or the name in it is missing.
    """
    module_name, _, attribute = target.partition(":")
    if module_name.endswith(".py"):
        raise GenmatchError(f"`{target}` names a file; expected package.module:Name, such as `{Path(module_name).stem}:{attribute}` in the folder of the file.")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise GenmatchError(f"`{target}` cannot be imported: {error}; expected package.module:Name on the Python path.") from error
    except GenmatchError:
        raise
    except Exception as error:
        raise GenmatchError(f"`{target}` cannot be imported: its module raises {type(error).__name__}: {error}; mend the module.") from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise unknown(f"name in {module_name}", attribute, [n for n in vars(module) if not n.startswith("_")]) from None


def _first_line(target: str) -> str:
    module, _, attribute = target.partition(":")
    path = _source_file(module)
    if path is None:
        return ""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == attribute:
            return (ast.get_docstring(node) or "").split("\n")[0]
    return ""


def _source_file(module: str) -> Path | None:
    """The file of a module, found below its top package without importing the packages in between."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return None
    if not rest:
        return Path(spec.origin)
    folder = Path(spec.origin).parent.joinpath(*rest)
    return next((path for path in (folder.with_suffix(".py"), folder / "__init__.py") if path.exists()), None)


processes = Registry(
    "process",
    "processes",
    "genmatch.processes",
    {
        "flow": "genmatch.processes.families:flow",
        "diffusion": "genmatch.processes.families:diffusion",
        "mask": "genmatch.processes.families:mask",
        "uniform": "genmatch.processes.families:uniform",
        "uniform-reversal": "genmatch.processes.families:uniform_reversal",
        "metric": "genmatch.processes.families:metric",
        "block": "genmatch.processes.families:block",
        "autoregressive": "genmatch.processes.families:autoregressive",
        "geodesic": "genmatch.processes.families:geodesic",
        "jump": "genmatch.processes.families:jump",
        "level-flow": "genmatch.processes.families:level_flow",
        "flow+jump": "genmatch.processes.families:flow_jump",
        "product": "genmatch.processes.families:product",
    },
)
"""Families: functions (or classes) that take a space of data and return a process on it."""

paths = Registry(
    "path",
    "paths",
    "genmatch.paths",
    {
        "gaussian": "genmatch.paths.gaussian:Gaussian",
        "mixture": "genmatch.paths.mixture:Mixture",
        "metric": "genmatch.paths.metric:Metric",
        "discrete": "genmatch.paths.discrete:Discrete",
        "noising": "genmatch.paths.noising:Noising",
        "real-mixture": "genmatch.paths.real_mixture:RealMixture",
        "geodesic": "genmatch.paths.geodesic:Geodesic",
        "sequential": "genmatch.paths.sequential:Sequential",
        "blocks": "genmatch.paths.blocks:Blocks",
        "product": "genmatch.paths.product:Product",
    },
)
"""Classes of conditional paths."""

solvers = Registry(
    "solver",
    "solvers",
    "genmatch.solvers",
    {
        "exact": "genmatch.solvers.general:Exact",
        "euler": "genmatch.solvers.general:Euler",
        "midpoint": "genmatch.solvers.ode:Midpoint",
        "heun": "genmatch.solvers.ode:Heun",
        "rk4": "genmatch.solvers.ode:RK4",
        "adams": "genmatch.solvers.circle:Adams",
        "adams-4": "genmatch.solvers.circle:adams_4",
        "circle-rk4": "genmatch.solvers.circle:CircleRK4",
        "circle-rk5": "genmatch.solvers.circle:CircleRK5",
        "2m": "genmatch.solvers.multistep:Multistep",
        "exponential-heun": "genmatch.solvers.predictor_corrector:ExponentialHeun",
        "adaptive": "genmatch.solvers.adaptive:Adaptive",
        "dopri5": "genmatch.solvers.ode:Dopri5",
        "euler-maruyama": "genmatch.solvers.sde:EulerMaruyama",
        "stochastic-heun": "genmatch.solvers.predictor_corrector:StochasticHeun",
        "churn": "genmatch.solvers.churn:Churn",
        "geodesic-midpoint": "genmatch.solvers.geodesic:GeodesicMidpoint",
        "sde-exponential": "genmatch.solvers.sde:SDEExponential",
        "algorithm7": "genmatch.solvers.ctmc:Algorithm7",
        "tau-leaping": "genmatch.solvers.ctmc:TauLeaping",
        "thinning": "genmatch.solvers.thinning:Thinning",
        "analytic-trapezoid": "genmatch.solvers.trapezoid:AnalyticTrapezoid",
        "theta-trapezoidal": "genmatch.solvers.trapezoid:ThetaTrapezoidal",
        "first-hitting": "genmatch.solvers.reveal:FirstHitting",
        "confidence": "genmatch.solvers.reveal:confidence",
        "margin": "genmatch.solvers.reveal:margin",
        "entropy": "genmatch.solvers.reveal:entropy",
        "random-order": "genmatch.solvers.reveal:random_order",
        "left-to-right": "genmatch.solvers.reveal:left_to_right",
        "threshold": "genmatch.solvers.reveal:Threshold",
        "entropy-bounded": "genmatch.solvers.reveal:EntropyBounded",
        "remdm": "genmatch.solvers.remask:ReMDM",
        "remdm-loop": "genmatch.solvers.remask:ReMDMLoop",
        "psi": "genmatch.solvers.remask:Psi",
        "forward-backward": "genmatch.solvers.wrappers:forward_backward",
        "gibbs": "genmatch.solvers.wrappers:gibbs",
        "argmax-final": "genmatch.solvers.wrappers:ArgmaxFinal",
    },
)
"""Solver classes."""

data = Registry(
    "data set",
    "data sets",
    "genmatch.data",
    {
        "digits": "genmatch.data.digits:digits",
        "checkerboard": "genmatch.data.toys:checkerboard",
        "gaussians": "genmatch.data.toys:gaussians",
        "chain": "genmatch.data.toys:chain",
        "airports": "genmatch.data.airports:airports",
        "digits+label": "genmatch.data.digits:digits_with_labels",
        "text": "genmatch.data.corpus:text",
        "prepared": "genmatch.data.prepared:prepared",
    },
)
"""Functions that return a `genmatch.data.DataSet`, without arguments or with one that may follow the name, as in `text:file.txt`."""

networks = Registry(
    "network",
    "networks",
    "genmatch.networks",
    {
        "mlp": "genmatch.nn.mlp:MLP",
        "transformer": "genmatch.nn.transformer:Transformer",
    },
)
"""Classes or functions that return a module, from a space, an output's shape, and the keywords `width`, `depth` and `labels`."""
