"""What is printed of an object says what it is, with its shapes, and neither an address nor pages of numbers."""

import inspect

import pytest
import torch

import genmatch as gm
from genmatch import registry
from genmatch.data import get
from genmatch.data.laws import Checkerboard
from genmatch.data.tokenisers import make_tokeniser
from genmatch.reprs import short
from genmatch.runs import find_process
from genmatch.settings import RunSettings

CLASSES = sorted(
    {
        thing
        for home in [gm, *(getattr(gm, name) for name in gm.__all__ if inspect.ismodule(getattr(gm, name)))]
        for thing in (getattr(home, name) for name in getattr(home, "__all__", vars(home)))
        if inspect.isclass(thing)
        and not thing.__name__.startswith("_")
        and thing.__module__.startswith("genmatch")
        and not inspect.isabstract(thing)
        and not issubclass(thing, BaseException)
    },
    key=lambda thing: f"{thing.__module__}.{thing.__name__}",
)
PROTOCOLS = {"BoundCheck"}


@pytest.mark.parametrize("thing", CLASSES, ids=lambda thing: thing.__name__)
def test_every_public_class_has_a_repr(thing):
    assert thing.__name__ in PROTOCOLS or thing.__repr__ is not object.__repr__


def things():
    """Objects of each kind, by name, with what has to be in their repr."""
    flow, mask = find_process("flow"), find_process("mask")
    x, t = torch.zeros(5, 2), torch.full((5,), 0.5)
    data = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    oracle = gm.oracle(flow, data)
    run = gm.simulate(flow, oracle, x, torch.linspace(0, 1, 9))
    net = gm.nn.MLP(flow.space, flow.output_shape, width=8, depth=1)
    jump = mask.generator(torch.zeros(5, 2, 3), mask.path.source(5), t)
    return {
        "drift": (flow.generator(x, x, t), "Drift(velocity=float32 (5, 2))"),
        "sum": (gm.generators.Drift(x) + gm.generators.Brownian(x), "Sum(terms=(Drift(velocity=float32 (5, 2)), Brownian("),
        "half": (0.5 * gm.generators.Drift(x), "Drift(velocity=float32 (5, 2))"),
        "jump": (jump, "Jump(intensity="),
        "destination": (gm.generators.Categorical(torch.zeros(5, 2, 3)), "Categorical(logits=float32 (5, 2, 3))"),
        "point": (gm.generators.PointMass(x), "PointMass(values=float32 (5, 2))"),
        "run": (run, "Run(states=[float32 (5, 2), ... 9 in all], times=float64 (9,), nfe=8, calls=int64 (5,))"),
        "trained": (gm.train(flow, net, data, steps=2, seed=0, batch_size=2), "TrainResult(model="),
        "oracle": (oracle, "Oracle(Flow(Gaussian((2,), schedule=CondOT()), prediction='velocity'), 2 data points)"),
        "likelihood": (gm.log_likelihood(flow, oracle, data), "Likelihood(nats=float64 (2,)"),
        "guided": (gm.guidance.classifier_free(gm.nn.MLP(flow.space, (2,), width=8, depth=1, labels={"label": 3}), 2.0), "ClassifierFree("),
        "sharp": (gm.sharpen(gm.oracle(mask, torch.tensor([[0, 1]])), temperature=0.5), "temperature=0.5"),
        "settings": (RunSettings("flow"), "RunSettings(process='flow'"),
        "view": (get("chain").views[0], "View(name='tokens', space=Categorical(shape=(12,), vocab_size=4, mask=False), train=int64 (8000, 12)"),
        "data": (get("chain"), "DataSet(chain: 8000 training and 2000 test points as tokens in Categorical(shape=(12,)"),
        "law": (Checkerboard(), "Checkerboard()"),
        "registry": (registry.solvers, "Registry("),
        "tokeniser": (make_tokeniser("characters", "abc"), "Vocabulary(vocab_size=3)"),
        "coupling": (gm.couplings.OptimalTransport(), "OptimalTransport("),
        "report": (gm.check_process(flow, level="quick"), "Report("),
    }


def test_an_object_says_what_it_is():
    for thing, words in things().values():
        shown = repr(thing)
        assert words in shown, shown
        assert " at 0x" not in shown, shown
        assert "tensor(" not in shown, shown


@pytest.mark.parametrize("kind", ["processes", "solvers", "schedules"])
def test_everything_with_a_name_says_what_it_is(kind):
    made = {
        "processes": lambda: [find_process(name) for name in registry.processes.names()],
        "solvers": lambda: [gm.solvers.get(name) for name in registry.solvers.names()],
        "schedules": lambda: [gm.schedules.CondOT(), gm.schedules.Cosine(), gm.schedules.VP(), gm.schedules.VE(), gm.schedules.Polynomial(3)],
    }[kind]()
    for one in made:
        for thing in (one, getattr(one, "path", one), getattr(one, "space", one)):
            assert type(thing).__name__ in repr(thing)
            assert " at 0x" not in repr(thing), repr(thing)
            assert "tensor(" not in repr(thing), repr(thing)


def test_a_solver_shows_what_is_not_the_default():
    assert repr(gm.solvers.get("heun")) == "Heun()"
    assert repr(gm.solvers.get("remdm")) == "ReMDM()"
    assert repr(type(gm.solvers.get("remdm"))(eta=0.5)) == "ReMDM(eta=0.5)"


def test_short_words_for_values():
    assert short((1, 2)) == "(1, 2)"
    assert short(torch.nn.Linear(2, 3)) == "Linear of 9 parameters"
    assert short({"a": [torch.zeros(1)]}) == "{a: [float32 (1,)]}"
