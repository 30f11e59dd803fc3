"""Orders of the solvers for tokens, with the whole law carried along by their exact kernels."""

import functools
import math

import pytest
import torch
from token_kernels import Chain, ranked_by_the_draw

import genmatch as gm
from genmatch.schedules import CondOT, Cosine, Polynomial
from genmatch.solvers.remask import Psi, ReMDM, ReMDMLoop
from genmatch.solvers.reveal import EntropyBounded, Threshold, TopK
from genmatch.solvers.trapezoid import ThetaTrapezoidal
from genmatch.solvers.wrappers import Corrected, Gibbs
from tests.toys import L, V, chain, chi_square, full, name_of, seeded, token_data, token_law, token_marginal, total_variation

F64 = torch.float64
# Thinning has no step to write out.
MASK, UNIFORM = ([name for name in gm.solvers.available(chain(source)) if name != "thinning"] for source in ("mask", "uniform"))


class Tabled:
    """The exact network, asked once for each state and time: of masks the posterior does not depend on time."""

    def __init__(self, process, law):
        self.process, self.oracle = process, gm.oracle(process, token_data(), law)
        self.states = process.space.enumerate()
        self.tables = {}

    def __call__(self, x, t):
        time = 0.5 if self.process.space.mask else float(t[0])
        if time not in self.tables:
            self.tables[time] = self.oracle(self.states, full(time, len(self.states)))
        return self.tables[time][self.process.space.index(x)]


@functools.cache
def toy(source, data, schedule=CondOT()):  # noqa: B008 (immutable)
    process = chain(source, schedule)
    return Chain(process, Tabled(process, token_law(data)))


@functools.cache
def errors(name, source, data, steps, span=(0.0, 1.0), schedule=CondOT()):  # noqa: B008 (immutable)
    """Total variation to the exact law in the middle of the grid and at its end."""
    this, law = toy(source, data, schedule), token_law(data)
    times = torch.linspace(*span, steps + 1, dtype=F64).tolist()
    laws = this.law(name, times, token_marginal(source, this.kappa(span[0]), law))
    return [total_variation(laws[k], token_marginal(source, this.kappa(times[k]), law)) for k in (steps // 2, steps)]


FULL, INTERIOR = (0.0, 1.0), (0.1, 0.8)
LEAST = {"euler": 0.75, "tau-leaping": 0.85, "theta-trapezoidal": 0.85, "analytic-trapezoid": 0.6}
"""The share of the order at the end: where the last step is another solver's, or the only one of its order, less is seen."""
CASES = [("strong", "mask", FULL), ("strong", "uniform", FULL), ("weak", "mask", INTERIOR)]


@pytest.mark.slow
@pytest.mark.parametrize(("data", "source", "span"), CASES, ids=["strong-mask", "strong-uniform", "weak-mask-interior"])
@pytest.mark.parametrize("name", [name for name in MASK if 0 < gm.solvers.get(name).order < math.inf])
def test_token_solvers_have_the_order_that_they_declare(name, data, source, span):
    coarse, fine = (errors(name, source, data, steps, span) for steps in (16, 32))
    middle, end = (math.log2(a / b) for a, b in zip(coarse, fine, strict=True))
    print(f"{name}, {data} {source} {span}: total variation {fine[-1]:.1e}, order {end:.2f} at the end and {middle:.2f} in the middle")
    assert end >= LEAST.get(name, 0.9) * gm.solvers.get(name).order
    assert middle >= 0.85 * gm.solvers.get(name).order
    assert fine[-1] < 7e-2


def test_every_declared_order_is_measured():
    assert set(UNIFORM) <= set(MASK)
    assert {name for name in MASK if gm.solvers.get(name).order == 0} == {*REVEALING, "remdm", "remdm-loop", "psi", "argmax-final"}


@pytest.mark.parametrize("source", ["mask", "uniform"])
def test_exact_steps_beat_frozen_rates(source):
    exact, leaping = (errors(name, source, "strong", 16)[0] for name in ("exact", "tau-leaping"))
    assert exact < 0.9 * leaping


def test_algorithm_7_is_the_exact_step_for_masks_and_straight_lines():
    assert errors("algorithm7", "mask", "strong", 8) == pytest.approx(errors("exact", "mask", "strong", 8), abs=1e-14)
    for schedule in (Cosine(), Polynomial(2.0)):
        one, two = (errors(name, "mask", "strong", 8, schedule=schedule)[0] for name in ("algorithm7", "exact"))
        assert one > 1.05 * two


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("schedule", [CondOT(), Cosine()], ids=name_of)
def test_first_hitting_is_exact_at_every_time(steps, schedule):
    assert max(errors("first-hitting", "mask", "strong", steps, schedule=schedule)) < 1e-12


def order(solver, source, data, span, steps):
    coarse, fine = (errors(solver, source, data, n, span)[1] for n in (steps, 2 * steps))
    print(f"{type(solver).__name__} {source} {data} {span}: {fine:.1e}, order {math.log2(coarse / fine):.2f}")
    return math.log2(coarse / fine), fine


@pytest.mark.parametrize(("theta", "span", "most"), [(0.5, INTERIOR, 2e-5), (0.3, INTERIOR, 2e-4), (0.5, FULL, 2e-3)])
def test_theta_trapezoidal_is_of_second_order_while_nothing_is_clipped(theta, span, most):
    measured, error = order(ThetaTrapezoidal(theta), "mask", "weak", span, 8)
    assert measured >= 1.8
    assert error < most
    assert error < errors("exact", "mask", "weak", 16, span)[1] / 4


@pytest.mark.parametrize("source", ["mask", "uniform"])
def test_theta_trapezoidal_falls_to_first_order_where_it_clips(source):
    measured, error = order(ThetaTrapezoidal(), source, "strong", INTERIOR, 16)
    assert 0.85 <= measured < 1.3
    assert error < errors("exact", source, "strong", 32, INTERIOR)[1] / 2


@pytest.mark.parametrize("span", [INTERIOR, FULL], ids=["interior", "full"])
def test_the_analytic_trapezoid_is_of_second_order_for_weak_masks(span):
    measured, error = order(gm.solvers.get("analytic-trapezoid"), "mask", "weak", span, 8)
    assert measured >= 1.9
    assert error < 1e-4


@pytest.mark.parametrize("data", ["strong", "weak"])
@pytest.mark.parametrize("calls", [4, 8, 16, 32])
def test_the_analytic_trapezoid_beats_the_exact_step_at_equal_calls(data, calls):
    trapezoid, exact = errors("analytic-trapezoid", "mask", data, calls // 2)[1], errors("exact", "mask", data, calls)[1]
    assert trapezoid < (0.8 if data == "strong" else 0.1) * exact


REVEALING = ["confidence", "margin", "entropy", "random-order", "left-to-right", "threshold", "entropy-bounded"]


@pytest.mark.parametrize("name", REVEALING)
def test_one_position_a_call_is_exact_at_the_end_whatever_the_score(name):
    """Three steps for three positions: one is revealed in each."""
    assert errors(name, "mask", "strong", L)[1] < 1e-12
    assert gm.solvers.get(name).calls is None or errors(name, "mask", "strong", L - 1)[1] > 1e-2


def test_adaptive_rules_range_from_one_position_a_call_to_all_at_once():
    together = errors("left-to-right", "mask", "strong", 1)[1]
    for careful, bold in ((Threshold(1.0), Threshold(1e-3)), (EntropyBounded(0.0), EntropyBounded(10.0))):
        assert errors(careful, "mask", "strong", 1)[1] < 1e-12
        assert errors(bold, "mask", "strong", 1)[1] == pytest.approx(together, abs=1e-12)
    between = errors(EntropyBounded(1.1), "mask", "strong", 1)[1]
    assert 1e-3 < between < together
    assert errors(TopK("margin", k=1), "mask", "strong", 1)[1] < 1e-12


def test_ranking_by_the_drawn_token_has_the_wrong_law():
    """Why no solver here does so: an exact network and one position a call, and yet."""
    for data in ("strong", "weak"):
        assert total_variation(ranked_by_the_draw(toy("mask", data)), token_marginal("mask", 1.0, token_law(data))) > 0.25


@pytest.mark.parametrize("name", ["random-order", "left-to-right"])
def test_positions_revealed_together_are_independent(name):
    """All at once is the product of the marginals, whatever the score."""
    law = token_law("strong")
    apart = torch.zeros(V, V, V, dtype=F64)
    for j in range(L):
        share = law.view(V, V, V).sum([k for k in range(L) if k != j])
        apart = share.view([-1 if k == j else 1 for k in range(L)]) * (apart if j else 1)
    assert errors(name, "mask", "strong", 1)[1] == pytest.approx(total_variation(apart.flatten(), law), abs=1e-12)


def test_remasking_of_nothing_is_the_exact_step_and_psi_is_remasking():
    this, t, s = toy("mask", "strong"), 0.4, 0.7
    exact = this.kernel("exact", t, s)
    assert torch.allclose(this.kernel(ReMDM(0.0), t, s), exact, atol=1e-15)
    assert torch.allclose(this.kernel(Psi(1.0), t, s), exact, atol=1e-15)
    share = 0.3 * (1 - s)
    assert torch.allclose(this.kernel(ReMDM(share, "cap"), t, s), this.kernel(Psi(0.7), t, s), atol=1e-15)


@pytest.mark.parametrize(
    "solver",
    [ReMDMLoop(0.5, 3, 0.4), ReMDMLoop(0.7, 2, 1.0), ReMDM(0.7), ReMDM(0.1, "cap"), ReMDM(2.0, "cap"), Psi(0.6), Psi(0.0)],
    ids=lambda s: f"{type(s).__name__}-{vars(s)}",
)
def test_remasking_keeps_the_law_of_one_token(solver):
    """For one position the frozen posterior is exact, so that any remasking carries p_t to p_s."""
    process, law = chain("mask", positions=1), torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=F64)
    this = Chain(process, gm.oracle(process, torch.arange(V).unsqueeze(-1), law))
    start, end = (token_marginal("mask", kappa, law, positions=1) for kappa in (0.4, 0.7))
    assert torch.allclose(this.kernel(solver, 0.4, 0.7) @ start, end, atol=1e-14)


@pytest.mark.parametrize("source", ["mask", "uniform", "tokens", "positions"])
def test_the_gibbs_corrector_is_stationary(source):
    this, law = toy(source, "strong"), token_law("strong")
    end = token_marginal(source, 0.6, law)
    move = this.kernel(Corrected(gm.solvers.get("exact"), Gibbs()), 0.6, 0.6)
    assert float((move @ end - end).abs().max()) < 1e-14
    flux = move * end
    assert float((flux - flux.T).abs().max()) < 1e-14, "detailed balance"
    assert total_variation(move @ token_marginal(source, 0.4, law), end) < total_variation(token_marginal(source, 0.4, law), end)


@pytest.mark.parametrize("schedule", [CondOT(), Cosine()], ids=name_of)
@pytest.mark.parametrize("source", ["mask", "uniform", "tokens", "positions"])
@pytest.mark.parametrize("name", MASK)
def test_steps_are_drawn_from_the_kernels_that_are_measured(name, source, schedule):
    this, n, t, s = toy(source, "strong", schedule), 30_000, 0.3, 0.65
    if gm.solvers.get(name).misfit(this.process):
        return
    some = torch.tensor([V, V, V]) if source == "mask" and name in ("euler", "algorithm7", "tau-leaping", *REVEALING) else torch.tensor([0, V, V])
    x = some.clamp(max=this.process.space.num_states - 1).expand(n, L)
    there = gm.solvers.get(name).step(this.process, this.model, x, full(t, n), full(s, n), rng=seeded(8))
    column = this.kernel(name, t, s)[:, int(this.process.space.index(x[:1]))]
    counts = this.process.space.index(there).bincount(minlength=len(column))
    assert float(column.sum()) == pytest.approx(1, abs=1e-12)
    assert chi_square(counts, column) > 1e-4


@pytest.mark.parametrize("name", MASK)
@pytest.mark.parametrize("source", ["mask", "uniform"])
def test_simulation_has_the_law_that_the_kernels_carry(name, source):
    """The loop, the grid and the last step together: states at every time against the law of the product of kernels."""
    this, n, steps = toy(source, "strong"), 20_000, 4
    if gm.solvers.get(name).misfit(this.process):
        return
    run = gm.simulate(this.process, this.model, this.process.path.source(n, rng=seeded(3)), torch.linspace(0, 1, steps + 1), solver=name, rng=seeded(4))
    for x, p in zip(run.states[1:], this.law(name, run.times.tolist())[1:], strict=True):
        assert chi_square(this.process.space.index(x).bincount(minlength=len(p)), p) > 1e-4
    assert this.process.path.data_space.validate(run.states[-1]) is not None


def test_algorithm_7_never_leaves_with_more_than_certainty():
    process, n = chain("mask", Polynomial(3.0)), 1000
    solver, x = gm.solvers.get("algorithm7"), torch.full((n, L), V)
    there = solver.step(process, lambda x, t: torch.zeros(n, L, V), x, full(0.9, n), full(0.99, n), rng=seeded())
    assert bool((there < V).any())
    there = solver.step(process, lambda x, t: torch.zeros(n, L, V), x, full(0.5, n), full(0.5, n) + 0.49, rng=seeded())
    assert process.space.validate(there).shape == (n, L)
