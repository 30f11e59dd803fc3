"""Orders of the solvers for tokens, with the whole law carried along by their exact kernels."""

import itertools
import math

import pytest
import torch

import genmatch as gm
from genmatch.schedules import CondOT, Cosine, Polynomial
from tests.toys import L, V, chain, chi_square, full, name_of, redraw, seeded, token_data, token_law, token_marginal, total_variation

F64 = torch.float64


def kernel_of(name, process, pi, x, t, s):
    """The matrix of one step from `t` to `s`, columns x, for posteriors `pi` (N, L, S): each solver's law, written out."""
    schedule, one = process.path.schedule, full(1.0, 1)
    kappa_t, kappa_s, d_kappa = (float(f(u * one)) for f, u in ((schedule.kappa, t), (schedule.kappa, s), (schedule.d_kappa, t)))
    noisy = process.path.is_noise(x).double()
    rate = d_kappa / (1 - kappa_t) * noisy
    stay = pi.gather(-1, x.unsqueeze(-1)).squeeze(-1)
    away = pi.scatter(-1, x.unsqueeze(-1), 0.0) / (1 - stay).clamp(min=1e-300).unsqueeze(-1)
    h = s - t
    return {
        "exact": lambda: redraw(pi, x, (kappa_s - kappa_t) / (1 - kappa_t) * noisy),
        "euler": lambda: redraw(pi, x, 1 - torch.exp(-h * rate)),
        "algorithm7": lambda: redraw(away, x, (h * rate * (1 - stay)).clamp(max=1)),
        "tau-leaping": lambda: redraw(away, x, 1 - torch.exp(-h * rate * (1 - stay))),
    }[name]()


NAMES = [name for name in gm.solvers.available(chain("mask")) if name != "thinning"]  # which has no step to write out


def posteriors(process, law, states, time):
    output = gm.oracle(process, token_data(), law)(states, full(time, len(states)))
    return torch.nn.functional.pad(process.mean(output), (0, process.space.num_states - V))


def law_errors(name, source, data, steps, span=(0.0, 1.0), schedule=CondOT()):  # noqa: B008 (immutable)
    """Total variation to the exact law at every time of the grid; the step into t = 1 is exact's, as in `simulate`."""
    process, law = chain(source, schedule), token_law(data)
    states, kappa = process.space.enumerate(), lambda t: float(schedule.kappa(full(t, 1)))
    p, errors = token_marginal(source, kappa(span[0]), law), []
    for t, s in itertools.pairwise(torch.linspace(*span, steps + 1, dtype=F64).tolist()):
        pi = posteriors(process, law, states, t)
        p = kernel_of("exact" if s == 1 else name, process, pi, states, t, s) @ p
        errors.append(total_variation(p, token_marginal(source, kappa(s), law)))
    return errors


FULL, INTERIOR = (0.0, 1.0), (0.1, 0.8)
LEAST = {"exact": 0.9, "euler": 0.75, "algorithm7": 0.9, "tau-leaping": 0.85}
"""The order at the end: the exact last step leaves little error, and less order, to a solver that does not finish by itself."""
CASES = [("strong", "mask", FULL), ("strong", "uniform", FULL), ("weak", "mask", INTERIOR)]


@pytest.mark.slow
@pytest.mark.parametrize(("data", "source", "span"), CASES, ids=["strong-mask", "strong-uniform", "weak-mask-interior"])
@pytest.mark.parametrize("name", NAMES)
def test_token_solvers_have_the_order_that_they_declare(name, data, source, span):
    coarse, fine = (law_errors(name, source, data, steps, span) for steps in (32, 64))
    end, middle = math.log2(coarse[-1] / fine[-1]), math.log2(coarse[15] / fine[31])
    print(f"{name}, {data} {source} {span}: total variation {fine[-1]:.1e}, order {end:.2f} at the end and {middle:.2f} in the middle")
    assert end >= LEAST[name] * gm.solvers.get(name).order
    assert middle >= 0.9 * gm.solvers.get(name).order
    assert fine[-1] < 5e-2


@pytest.mark.parametrize("source", ["mask", "uniform"])
def test_exact_steps_beat_frozen_rates(source):
    exact, leaping = (law_errors(name, source, "strong", 16)[8] for name in ("exact", "tau-leaping"))
    assert exact < 0.9 * leaping


def test_algorithm_7_is_the_exact_step_for_masks_and_straight_lines():
    assert law_errors("algorithm7", "mask", "strong", 8) == pytest.approx(law_errors("exact", "mask", "strong", 8), abs=1e-14)
    for schedule in (Cosine(), Polynomial(2.0)):
        one, two = (law_errors(name, "mask", "strong", 8, schedule=schedule)[4] for name in ("algorithm7", "exact"))
        assert one > 1.05 * two


@pytest.mark.parametrize("schedule", [CondOT(), Cosine()], ids=name_of)
@pytest.mark.parametrize("source", ["mask", "uniform", "tokens", "positions"])
@pytest.mark.parametrize("name", NAMES)
def test_steps_are_drawn_from_the_kernels_that_are_measured(name, source, schedule):
    process, law, n = chain(source, schedule), token_law("strong"), 30_000
    x = torch.tensor([[0, 2, V if source == "mask" else 3]])
    x = torch.full_like(x, V) if source == "mask" and name != "exact" else x
    t, s = 0.3, 0.65
    model = gm.oracle(process, token_data(), law)
    column = kernel_of(name, process, posteriors(process, law, x, t), x, t, s)[:, 0]
    solver = gm.solvers.get(name)
    there = solver.step(process, lambda x, t: model(x[:1], t[:1]).expand(n, L, V), x.expand(n, L), full(t, n), full(s, n), rng=seeded(8))
    counts = process.space.index(there).bincount(minlength=process.space.cardinality)
    assert float(column.sum()) == pytest.approx(1, abs=1e-12)
    assert chi_square(counts, column) > 1e-4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("source", ["mask", "uniform"])
def test_simulation_has_the_law_that_the_kernels_carry(name, source):
    """The loop, the grid and the last step together: states at two times against the law of the product of kernels."""
    process, law, n, steps = chain(source), token_law("strong"), 20_000, 4
    model = gm.oracle(process, token_data(), law)
    states = process.space.enumerate()
    run = gm.simulate(process, model, process.path.source(n, rng=seeded(3)), torch.linspace(0, 1, steps + 1), solver=name, rng=seeded(4))
    p = token_marginal(source, 0.0, law)
    for (t, s), x in zip(itertools.pairwise(run.times.tolist()), run.states[1:], strict=True):
        p = kernel_of("exact" if s == 1 else name, process, posteriors(process, law, states, t), states, t, s) @ p
        assert chi_square(process.space.index(x).bincount(minlength=len(states)), p) > 1e-4
    assert process.path.data_space.validate(run.states[-1]) is not None


def test_algorithm_7_never_leaves_with_more_than_certainty():
    process, n = chain("mask", Polynomial(3.0)), 1000
    solver, x = gm.solvers.get("algorithm7"), torch.full((n, L), V)
    there = solver.step(process, lambda x, t: torch.zeros(n, L, V), x, full(0.9, n), full(0.99, n), rng=seeded())
    assert bool((there < V).any())
    there = solver.step(process, lambda x, t: torch.zeros(n, L, V), x, full(0.5, n), full(0.5, n) + 0.49, rng=seeded())
    assert process.space.validate(there).shape == (n, L)
