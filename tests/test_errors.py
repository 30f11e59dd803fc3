"""Bad input is refused before work starts, with what was expected, what came, and the mend."""

import math

import pytest
import torch

import genmatch as gm
from genmatch.compare.metrics import frechet_error
from genmatch.errors import positive_integer, unknown
from genmatch.models import as_condition
from genmatch.sampling import make_rng
from genmatch.settings import Plan, Settings
from tests.toys import chain, full, grid, line, token_data

F64 = torch.float64
FLOW, CHAIN = gm.Flow(line()), chain("mask")
X0, TIMES = torch.zeros(2, 1, dtype=F64), grid(0, 1, 4)


def zeros(x, t):
    return torch.zeros_like(x)


def simulate(**change):
    arguments = {"process": FLOW, "model": zeros, "x0": X0, "times": TIMES} | change
    return gm.simulate(arguments.pop("process"), arguments.pop("model"), arguments.pop("x0"), arguments.pop("times"), **arguments)


def sample(**change):
    arguments = {"process": FLOW, "model": zeros, "n": 2} | change
    return gm.sample(arguments.pop("process"), arguments.pop("model"), arguments.pop("n"), **arguments)


BAD_SIMULATIONS = [
    ({"x0": torch.zeros(2, 3)}, r"`x0` must have shape \(B, 1\), got \(2, 3\); pass"),
    ({"x0": torch.zeros(2, 1, dtype=torch.int64)}, r"`x0` must be floating.*got torch.int64; pass `x0.float\(\)`"),
    ({"x0": X0 / 0}, "`x0` must be finite"),
    ({"process": CHAIN, "x0": torch.full((1, 3), 5)}, "`x0` must hold tokens 0 to 4, got 5; check the tokeniser"),
    ({"times": TIMES + 0.5}, r"`times` must increase strictly inside \[0, 1\], got \[0.5"),
    ({"times": -TIMES}, "must increase strictly"),
    ({"times": torch.zeros(3)}, "must increase strictly"),
    ({"times": TIMES * math.nan}, "must increase strictly"),
    ({"times": torch.arange(3)}, r"floating times, got torch.int64 with shape \(3,\); pass `torch.linspace\(0, 1, 33\)`"),
    ({"times": torch.zeros(1)}, r"at least two floating times.*shape \(1,\)"),
    ({"times": torch.zeros(2, 2)}, r"shape \(2, 2\)"),
    ({"times": "fast"}, "`times` must be at least two floating times, got 'fast'"),
    ({"solver": "eulr"}, "unknown solver `eulr`; did you mean `euler`.*Known: 2m, adams"),
    ({"solver": 3}, "`solver` must be a name or a Solver, got 3; known names: exact"),
    ({"solver": "tau-leaping"}, "TauLeaping simulates jump only, and Flow has drift too; solvers that fit: exact, euler"),
    (
        {"process": CHAIN, "x0": token_data()[:2], "solver": "heun"},
        "Heun simulates drift only, and CTMC has jump too; solvers that fit: exact, euler, algorithm7",
    ),
    ({"process": gm.Diffusion(line()), "solver": "rk4"}, "RK4 simulates drift only, and Diffusion has brownian too"),
    ({"model": 3}, r"`model` must be callable as model\(x, t, \*\*condition\), got int"),
    ({"model": lambda x, t: x.repeat(1, 2)}, r"output must have shape \(2, 1\) .*got \(2, 2\); build the network with `process.output_shape`"),
    ({"model": lambda x, t: x[:1]}, r"shape \(2, 1\).*got \(1, 1\)"),
    ({"model": lambda x, t: x.long()}, "must return a floating tensor, got torch.int64"),
    ({"model": lambda x, t: None}, "must return a floating tensor, got NoneType"),
    ({"model": lambda x, t: x * math.nan}, "the simulated state` must be finite"),
    ({"condition": torch.zeros(3)}, r"condition `condition` must be a tensor with one entry for each of 2 samples, got \(3,\)"),
    ({"condition": {"label": 3}}, "condition `label` must be a tensor.*got int"),
    ({"condition": 3}, "`condition` must be a tensor or a dictionary of tensors, got int"),
]


@pytest.mark.parametrize(("change", "message"), BAD_SIMULATIONS, ids=[m[:40] for _, m in BAD_SIMULATIONS])
def test_what_cannot_be_simulated_is_refused(change, message):
    with pytest.raises(gm.GenmatchError, match=message):
        simulate(**change)


@pytest.mark.parametrize(("thing", "found"), [(gm.Flow, "the class Flow"), (torch.nn.Linear(1, 1), "Linear")])
def test_a_class_and_a_network_are_no_process(thing, found):
    network = torch.nn.Linear(1, 1)
    calls = [
        lambda: gm.train(thing, network, torch.zeros(4, 1), steps=1),
        lambda: gm.sample(thing, network, 2),
        lambda: gm.simulate(thing, network, torch.zeros(2, 1), torch.tensor([0.0, 1.0])),
    ]
    for call in calls:
        with pytest.raises(gm.GenmatchError, match=f"`process` must be a MarkovProcess, got {found}; pass an instance"):
            call()


class Undeclared(gm.solvers.Solver):
    order = 1

    def step(self, process, predict, x, t, s, *, rng=None):
        return x


BAD_SAMPLES = [
    ({"solver": Undeclared()}, "Undeclared lacks `calls`; declare class attributes"),
    ({"model": lambda x, t: x @ torch.ones(7, 7)}, "the model failed at its first call, on states of .* with RuntimeError: .*It must be callable as model"),
    ({"n": 0}, "`n` must be a positive integer, got 0"),
    ({"n": 2.0}, "`n` must be a positive integer, got 2.0"),
    ({"n": "2"}, "`n` must be a positive integer, got '2'"),
    ({"steps": 0}, "`steps` must be a positive integer, got 0"),
    ({"batch_size": 0}, "`batch_size` must be a positive integer, got 0"),
    ({"steps": 10**30}, "`steps` must be a positive integer of at most 64 bits, got 1000"),
    ({"seed": "one"}, "`seed` must be an integer of at most 64 bits, got 'one'"),
    ({"seed": True}, "`seed` must be an integer of at most 64 bits, got True"),
    ({"seed": 2**63}, "`seed` must be an integer of at most 64 bits, got 9223372036854775808"),
    ({"times": grid(0.5, 1, 2)}, "`times` must start at 0.*got 0.5; use `gm.simulate` to start later"),
    ({"solver": "algorithm8"}, "unknown solver `algorithm8`; did you mean `algorithm7`"),
    ({"condition": torch.zeros(3)}, "for each of 2 samples"),
    ({"process": CHAIN, "model": lambda x, t: torch.full((len(x), 3, 4), math.nan)}, "logits of tokens must not be NaN.*has diverged"),
    ({"process": CHAIN, "model": lambda x, t: torch.zeros(len(x), 3, 5)}, r"shape \(1, 3, 4\) .*got \(1, 3, 5\)"),
]


@pytest.mark.parametrize(("change", "message"), BAD_SAMPLES, ids=[m[:40] for _, m in BAD_SAMPLES])
def test_what_cannot_be_sampled_is_refused(change, message):
    with pytest.raises(gm.GenmatchError, match=message):
        sample(**change)


@pytest.mark.parametrize("call", [simulate, sample])
def test_a_solver_that_does_not_fit_is_refused_before_the_model_is_called(call):
    def model(x, t):
        raise RuntimeError("called")

    with pytest.raises(gm.GenmatchError, match="solvers that fit"):
        call(model=model, solver="tau-leaping")


def test_a_model_of_the_wrong_shape_is_found_with_one_sample():
    sizes = []

    def model(x, t):
        sizes.append(len(x))
        return torch.zeros(len(x), 7)

    with pytest.raises(gm.GenmatchError, match="output must have shape"):
        gm.sample(FLOW, model, 10_000)
    assert sizes == [1]


def test_a_process_that_misses_a_method_says_what_to_use():
    class Bare(gm.MarkovProcess):
        kinds = frozenset({"drift"})
        path = line()
        target = generator = None

    bare = Bare()
    assert "exact" not in gm.solvers.available(bare)
    assert gm.solvers.available(bare)[0] == "euler"
    with pytest.raises(gm.GenmatchError, match=r"Exact needs `transition`, which Bare.* does not define; solvers that fit: euler"):
        gm.sample(bare, zeros, 2, solver="exact")
    with pytest.raises(gm.GenmatchError, match="Bare defines no `transition`; use solver='euler'"):
        bare.transition(X0, X0, full(0.0, 2), full(1.0, 2))


def test_a_process_that_declares_jumps_that_it_does_not_make_is_told():
    class Liar(gm.MarkovProcess):
        kinds = frozenset({"jump"})
        path = line()
        target = None

        def generator(self, output, x, t):
            return gm.generators.Drift(output)

    with pytest.raises(gm.GenmatchError, match="Liar declares jumps, but its generator has none; correct its `kinds`"):
        gm.sample(Liar(), zeros, 2, solver="tau-leaping", steps=2)


def test_every_error_is_a_value_error_of_one_family():
    assert issubclass(gm.GenmatchError, ValueError)


def test_unknown_names_list_the_near_ones_first():
    message = str(unknown("solver", "rk5", ["rk4", "euler", "heun"]))
    assert message == "unknown solver `rk5`; did you mean `rk4`? Known: euler, heun, rk4."
    assert str(unknown("solver", "zzz", ["rk4"])) == "unknown solver `zzz`. Known: rk4."
    assert "did you mean" in str(unknown("solver", "Euler", ["euler"]))


@pytest.mark.parametrize("value", [0, -1, 1.0, "3", None, math.nan, [1]])
def test_only_positive_integers_count(value):
    with pytest.raises(gm.GenmatchError, match=r"`steps` must be a positive integer, got"):
        positive_integer(value, "steps")


def test_integers_of_any_library_count():
    import numpy as np

    assert positive_integer(np.int64(3), "steps") == 3
    assert type(positive_integer(torch.tensor(3), "steps")) is int


def test_conditions_are_tensors_or_dictionaries():
    assert as_condition(None) == {}
    assert list(as_condition(X0)) == ["condition"]
    assert as_condition({"a": X0}) == {"a": X0}


@pytest.mark.parametrize("seed", ["one", True, 1.0, 2**63, -(2**63) - 1])
def test_a_seed_has_64_bits_wherever_it_is_given(seed):
    calls = [
        lambda: Settings(steps=1, seed=seed),
        lambda: Plan(seed=seed),
        lambda: make_rng(torch.device("cpu"), seed),
        lambda: gm.check_solver("euler", seed=seed),
        lambda: frechet_error(X0, X0, seed=seed),
    ]
    for call in calls:
        with pytest.raises(gm.GenmatchError, match="`seed` must be an integer of at most 64 bits, got "):
            call()


def test_a_number_too_large_for_a_float_is_infinite():
    with pytest.raises(gm.GenmatchError, match=r"`scale` must be a number in \[0, inf\)"):
        gm.guidance.classifier_free(lambda x, t: x, scale=10**400)
