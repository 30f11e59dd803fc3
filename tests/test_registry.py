import re
import sys

import pytest

import genmatch as gm
from genmatch import registry
from genmatch.registry import Registry
from genmatch.solvers import Solver
from genmatch.solvers.general import Euler
from tests.toys import chain, line


@pytest.fixture
def session(monkeypatch):
    """Registrations that are forgotten after the test."""
    for one in (registry.solvers, registry.processes):
        monkeypatch.setattr(one, "_registered", {})


KINDS = [registry.solvers, registry.processes, registry.data]


@pytest.mark.parametrize("kind", KINDS, ids=lambda r: r.kind)
def test_every_name_resolves_and_is_described(kind):
    lines = kind.describe()
    assert set(kind.names()) <= set(lines)
    for name in kind.names():
        assert callable(kind.get(name))
        assert lines[name][0].endswith((".", "?", ":")), f"`{name}` has no first line"


@pytest.mark.parametrize("kind", KINDS, ids=lambda r: r.kind)
def test_descriptions_come_from_the_source(kind):
    for name, (line_, package) in kind.describe().items():
        if package == "genmatch":
            assert line_ == kind.get(name).__doc__.strip().split("\n")[0]


@pytest.mark.parametrize("kind", KINDS, ids=lambda r: r.kind)
def test_unknown_names_are_refused_with_near_ones(kind):
    near = kind.names()[0]
    with pytest.raises(gm.GenmatchError, match=f"unknown {kind.kind} `{near}x`; did you mean `{near}`.*Known: "):
        kind.get(near + "x")


def test_available_solvers_start_with_the_recommended_one():
    flow, diffusion = (gm.solvers.available(process) for process in (gm.Flow(line()), gm.Diffusion(line())))
    assert flow[:5] == ["exact", "euler", "midpoint", "heun", "rk4"]
    assert {"2m", "adaptive", "dopri5", "sde-exponential"} <= set(flow)
    assert diffusion[:2] == ["exact", "euler"]
    assert "heun" not in diffusion
    assert gm.solvers.available(chain("uniform"))[:4] == ["exact", "euler", "algorithm7", "tau-leaping"]
    assert set(gm.solvers.available(chain("mask"))) - set(gm.solvers.available(chain("uniform"))) >= {"first-hitting", "confidence", "remdm"}
    assert set(gm.processes.available()) >= {"flow", "diffusion", "mask", "uniform"}


def test_solvers_declare_their_facts():
    for name in gm.solvers.names():
        solver = gm.solvers.get(name)
        assert isinstance(solver, Solver)
        assert solver.order >= 0
        assert solver.calls is None or solver.calls > 0
        assert solver.kinds is None or solver.kinds <= {"drift", "geodesic drift", "brownian", "jump"}


@pytest.mark.usefixtures("session")
def test_a_registered_solver_is_a_solver_like_any_other():
    @gm.solvers.register("mine")
    class Mine(Solver):
        """Euler again."""

        order, calls = 1, 1

        def step(self, process, predict, x, t, s, *, rng=None):
            return Euler().step(process, predict, x, t, s, rng=rng)

    process = chain("uniform")
    assert "mine" in gm.solvers.available(process)
    assert registry.solvers.describe()["mine"] == ("Euler again.", __name__)
    model = gm.oracle(process, [[0, 1, 2]])
    assert gm.sample(process, model, 3, solver="mine", steps=2, seed=0).tolist() == [[0, 1, 2]] * 3
    assert gm.sample(process, model, 3, solver=Mine(), steps=2, seed=0).tolist() == [[0, 1, 2]] * 3


@pytest.mark.usefixtures("session")
def test_a_name_belongs_to_the_first_who_takes_it():
    with pytest.raises(gm.GenmatchError, match="the solver name `euler` is taken; choose another"):
        gm.solvers.register("euler")(Euler)
    gm.solvers.register("mine")(Euler)
    assert gm.solvers.register("mine")(Euler) is Euler, "a cell that runs twice is no clash"
    with pytest.raises(gm.GenmatchError, match="`mine` is taken"):
        gm.solvers.register("mine")(type("Other", (Euler,), {}))


def test_a_path_to_a_class_is_a_name(tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text("class Family:\n    pass\n\n\nnothing = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert gm.processes.get("theirs:Family").__name__ == "Family"
    with pytest.raises(gm.GenmatchError, match="unknown name in theirs `Famly`; did you mean `Family`"):
        gm.processes.get("theirs:Famly")
    with pytest.raises(gm.GenmatchError, match=r"`nowhere:Family` cannot be imported.*expected package.module:Name"):
        gm.processes.get("nowhere:Family")
    with pytest.raises(gm.GenmatchError, match="must be a name or a Solver"):
        gm.solvers.get("theirs:Family")
    with pytest.raises(gm.GenmatchError, match=r"got the class Euler; pass an instance, `Euler\(\)`"):
        gm.solvers.get(Euler)
    sys.modules.pop("theirs")


class Point:
    """What an entry point is, as far as a registry asks."""

    name, value, dist = "theirs", "genmatch.solvers.general:Euler", None


@pytest.fixture
def looked_again():
    """Entry points are looked for again, before a test and after it."""
    registry.installed.cache_clear()
    yield
    registry.installed.cache_clear()


@pytest.mark.usefixtures("looked_again")
def test_entry_points_are_names(monkeypatch):
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Point] if group == "genmatch.solvers" else [])
    assert "theirs" in registry.solvers.names()
    assert registry.solvers.get("theirs") is Euler
    assert registry.solvers.describe()["theirs"][1] == "?"
    with pytest.raises(gm.GenmatchError, match="`theirs` is taken"):
        gm.solvers.register("theirs")(Euler)


@pytest.mark.usefixtures("looked_again")
def test_a_builtin_name_is_not_replaced_by_an_entry_point(monkeypatch):
    class Thief(Point):
        name = "heun"

    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Thief])
    assert registry.solvers.get("heun") is not Euler
    assert registry.solvers.describe()["heun"][1] == "genmatch"


def test_a_registry_of_nothing_says_so():
    empty = Registry("thing", "things", "genmatch.nothing", {})
    assert empty.names() == []
    with pytest.raises(gm.GenmatchError, match="unknown thing `a`"):
        empty.get("a")


TOKENS = {"autoregressive", "block", "mask", "uniform", "uniform-reversal", "metric"}
MANIFOLDS = {"geodesic"}
LEVELS = {"jump", "flow+jump", "level-flow"}
PRODUCTS = {"product"}
FAMILIES = [name for name in gm.processes.available() if gm.processes.get(name).__module__.startswith("genmatch.")]


@pytest.mark.parametrize("name", FAMILIES)
def test_families_fit_one_kind_of_space_and_refuse_the_other(name):
    fits, other = gm.spaces.Euclidean((3,)), gm.spaces.Categorical((3,), 4)
    if name in TOKENS:
        fits, other = other, fits
    if name in MANIFOLDS:
        fits = gm.spaces.Sphere(2)
    if name in LEVELS:
        fits = gm.spaces.Grid((3,), [-1.0, 0.0, 1.0])
    if name in PRODUCTS:
        fits = gm.spaces.ProductSpace(place=fits, word=other)
    assert gm.processes.get(name)(fits).data_space == fits
    with pytest.raises(gm.GenmatchError, match=rf"the family `{re.escape(name)}` needs data.*got {type(other).__name__}"):
        gm.processes.get(name)(other)
