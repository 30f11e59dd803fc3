r"""What a name stands for, in words and formulas: the recipe of a family from its own docstrings.

A process is explained by what its author wrote anyway: the docstring of the path's module (its equation), of `target`, of the process's
module (its generator) and of `divergence`, with the solvers that fit. What these do not say well, a process says in `recipe`.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from genmatch import data as data_sets
from genmatch import registry, schedules, solvers
from genmatch.errors import GenmatchError, unknown
from genmatch.paths import Path
from genmatch.processes import MarkovProcess
from genmatch.runs import find_process, fit_view
from genmatch.schedules import Schedule
from genmatch.solvers import Solver

_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau phi chi psi omega"
_SIGNS = dict(zip(_GREEK.split(), "αβγδεζηθικλμνξπρστφχψω", strict=True)) | {
    "Delta": "Δ", "varsigma": "ς", "sum": "Σ", "int": "∫", "sim": "~", "in": "∈", "infty": "∞", "to": "→", "le": "≤", "ge": "≥", "ne": "≠",
    "cdot": "·", "otimes": "⊗", "times": "×", "mid": "|", "pm": "±", "approx": "≈", "quad": "  ", "partial": "∂", "nabla": "∇",
}  # fmt: skip

_WIDTH = 128


@dataclass(frozen=True)
class Explanation:
    """What something is.

    Attributes:
        kind: "process", "path", "solver", "data", "network" or "schedule".
        title: its name and what it is in a line.
        sections: what there is to say, by heading, in order.
    """

    kind: str
    title: str
    sections: Mapping[str, str]

    def __str__(self) -> str:
        parts = [self.title]
        for heading, text in self.sections.items():
            lines = [part for line in text.splitlines() for part in _wrapped(line)]
            parts += ["", f"{heading:<12}{lines[0]}", *(f"{'':12}{line}".rstrip() for line in lines[1:])]
        return "\n".join(parts)


def explain(name: str, *, kind: str | None = None, data: str | None = None) -> Explanation:
    """Explains a family, a path, a solver, a schedule, a data set or a network by name, or `package.module:Name`.

    Args:
        name: of it.
        kind: "process", "path", "solver", "data", "network" or "schedule", where several have the name; the first of these by default.
        data: a data set on whose spaces a family is made; small spaces by default.

    Raises:
        GenmatchError: if nothing has that name.

    Example:
        >>> print(explain("flow").sections["generator"].splitlines()[0])
        drift: Flow matching: the deterministic process that follows the marginal velocity of a path.
    """
    kinds = [kind] if kind else list(_EXPLAIN)
    for one in kinds:
        names, make = _EXPLAIN[one]
        if name in names() or (kind and ":" in name) or (one == "data" and name.partition(":")[0] in names()):
            return make(name, data)
    if ":" in name:
        return _EXPLAIN[_kind_of(registry.load(name))][1](name, data)
    raise unknown(kind or "name", name, sorted({known for one in kinds for known in _EXPLAIN[one][0]()}))


def _kind_of(thing: Any) -> str:
    """As what something that is not registered is explained."""
    kind = thing if inspect.isclass(thing) else type(thing)
    return "path" if issubclass(kind, Path) else "solver" if issubclass(kind, Solver) else "process"


def recipe(process: MarkovProcess) -> dict[str, str]:
    """Path, target, generator, divergence, likelihood and solvers of a process, in words and formulas.

    Example:
        >>> import genmatch as gm
        >>> list(recipe(gm.Flow(gm.paths.Gaussian((2,)))))
        ['process', 'path', 'target', 'generator', 'divergence', 'likelihood', 'solvers']
    """
    kind = type(process)
    written = {
        "path": module_text(type(process.path)),
        "target": _described(kind.target),
        "generator": f"{', '.join(sorted(process.kinds))}: {module_text(kind)}",
        "divergence": _described(kind.divergence),
        **{heading: plain(text) for heading, text in process.recipe.items()},
    }
    fitting = solvers.available(process)
    return {
        "process": f"{process}\na network returns {process.output_shape} for one state",
        **written,
        "likelihood": _likelihood(process),
        "solvers": f"{fitting[0]} (recommended)" + "".join(f", {name}" for name in fitting[1:]) if fitting else "none: it generates nothing by itself",
    }


def fits() -> dict[str, dict[str, list[str]]]:
    """Which families fit each data set, and which solvers fit each family; what cannot be loaded here is left out of the first."""
    by_data: dict[str, list[str]] = {}
    for name in registry.data.names():
        try:
            data = data_sets.get(name)
        except GenmatchError:
            continue
        by_data[name] = [family for family in registry.processes.names() if _fits(family, data)]
    by_process = {name: solvers.available(find_process(name)) for name in registry.processes.names()}
    return {"data: processes that fit": by_data, "process: solvers that fit, the recommended one first": by_process}


def plain(text: str) -> str:
    r"""A docstring with LaTeX as one reads it in a terminal.

    Example:
        >>> plain(r"$dX = u_t(X)\,dt$ with $\dot\alpha_t$ and $\tfrac12 g^2$")
        "dX = u_t(X) dt with α'_t and 1/2 g²"
    """
    text = re.sub(r"\$([^$]+)\$", lambda found: re.sub(" +", " ", _formula(found[1])), text)
    # Indented lines are formulas without dollars.
    return "\n".join(_formula(line) if line.startswith("    ") else line for line in text.splitlines()).replace("``", "`")


def module_text(thing: type) -> str:
    """The docstring of the module that defines a class, without its sources; that of the class, where the module says nothing."""
    text = inspect.getdoc(sys.modules[thing.__module__]) or inspect.getdoc(thing) or thing.__name__
    return plain(_without_sources(text))


def _process(name: str, data: str | None) -> Explanation:
    process = find_process(name, data)
    made = registry.processes.get(name)
    doc = inspect.getdoc(made) if callable(made) else None
    return Explanation("process", f"{name}: {plain(_first_paragraph(doc or inspect.getdoc(type(process))))}", recipe(process))


def _solver(name: str, _: str | None) -> Explanation:
    solver = solvers.get(name)
    order = {0: "its error does not fall with the step", float("inf"): "it has no error of the step"}.get(solver.order, f"order {solver.order:g} in the step")
    facts = [
        order,
        "as many network calls as it needs" if solver.calls is None else f"{solver.calls} network call{'s' if solver.calls > 1 else ''} a step",
        f"for generators of {', '.join(sorted(solver.kinds))}" if solver.kinds is not None else "for any generator",
        *([f"needs the process's {', '.join(solver.needs)}"] if solver.needs else []),
    ]
    fitting = [family for family in registry.processes.names() if solver.misfit(find_process(family)) is None]
    sections = {"declares": "\n".join(facts), "method": module_text(type(solver)), "fits": ", ".join(fitting) or "no family"}
    return Explanation("solver", f"{name}: {_title(registry.solvers.get(name))}", sections)


def _path(name: str, _: str | None) -> Explanation:
    thing = registry.paths.get(name)
    return Explanation("path", f"{name}: {_title(thing)}", {"law": module_text(thing), "made by": _call(thing)})


def _schedule(name: str, _: str | None) -> Explanation:
    thing = _schedules()[name]
    return Explanation(
        "schedule",
        f"{name}: {_title(thing)}",
        {"schedule": _described(thing), "all of them": module_text(thing), "made by": _call(thing)},
    )


def _data(name: str, _: str | None) -> Explanation:
    data, known = data_sets.get(name), name.partition(":")[0]
    views = "\n".join(f"{view.name}: {view.space}" for view in data.views)
    families = ", ".join(family for family in registry.processes.names() if _fits(family, data))
    split = f"{len(data.train)} training points, {len(data.test)} test points" + (", with labels" if data.labels else "")
    sections = {"split": split, "views": views, "compared in": data.features.description, "processes": families or "none"}
    return Explanation("data", f"{name}: {_title(registry.data.get(known if known in registry.data.names() else name))}", sections)


def _network(name: str, _: str | None) -> Explanation:
    thing = registry.networks.get(name)
    return Explanation("network", f"{name}: {_title(thing)}", {"network": _described(thing), "made by": _call(thing)})


def _schedules() -> dict[str, type]:
    return {name: thing for name, thing in vars(schedules).items() if inspect.isclass(thing) and issubclass(thing, Schedule) and thing is not Schedule}


_EXPLAIN: dict[str, tuple[Callable[[], Any], Callable[[str, str | None], Explanation]]] = {
    "process": (registry.processes.names, _process),
    "path": (registry.paths.names, _path),
    "solver": (registry.solvers.names, _solver),
    "data": (registry.data.names, _data),
    "network": (registry.networks.names, _network),
    "schedule": (_schedules, _schedule),
}


def _fits(family: str, data: data_sets.DataSet) -> bool:
    try:
        fit_view(family, data)
    except GenmatchError:
        return False
    return True


def _likelihood(process: MarkovProcess) -> str:
    if not process.has_noise:
        return "exact log p by the change of variables (`gm.log_likelihood`)"
    return f"a {'tight' if process.bound_is_tight else 'loose'} bound of -log p (`gm.elbo`), of {process.bound}"


def _call(thing: type) -> str:
    return f"{thing.__name__}{inspect.signature(thing).replace(return_annotation=inspect.Signature.empty)}"


def _title(thing: Any) -> str:
    return plain(_first_paragraph(inspect.getdoc(thing)))


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, _WIDTH) if len(line) > _WIDTH and not line.startswith(" ") else [line]


def _described(method: Any) -> str:
    """What a docstring says before its arguments."""
    text = re.split(r"\n\n(?:Args|Raises|Returns|Example)\b", inspect.getdoc(method) or "")[0]
    return plain("\n".join(" ".join(part.split("\n")) for part in text.split("\n\n")))


def _first_paragraph(text: str | None) -> str:
    return plain(" ".join((text or "").split("\n\n")[0].split()))


def _without_sources(text: str) -> str:
    return "\n\n".join(part for part in text.split("\n\n") if not re.match(r"Sources?:", part))


def _formula(text: str) -> str:
    """LaTeX to what a terminal shows; names in other formulas, such as alpha_t, become signs too."""
    text = re.sub(r"\\[dt]?frac\s*(\d)(\d)", r"\1/\2", text)
    text = re.sub(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}", r"(\1)/(\2)", text)
    text = re.sub(r"\\sqrt\{([^{}]*)\}", r"√(\1)", text)
    text = re.sub(r"\\dot\s*\\([A-Za-z]+)", lambda found: f"\\{found[1]}'", text)
    text = re.sub(r"\\(?:hat|tilde|bar|mathcal|mathbb|mathrm|text|operatorname)\s*\{?(\w+)\}?", r"\1", text)
    text = re.sub(r"\\[,;:! ]", " ", text).replace(r"\left", "").replace(r"\right", "").replace(r"\{", "{").replace(r"\}", "}")
    text = re.sub(r"\\([A-Za-z]+)", lambda found: _SIGNS.get(found[1], found[1]), text)
    text = re.sub(rf"(?<![A-Za-z])(d_)?({'|'.join(_GREEK.split())})(?![A-Za-z])", lambda found: (found[1] or "") + _SIGNS[found[2]], text)
    return text.replace("^2", "²")
