"""What the samplers of tokens share: grids, sharper logits, the final argmax, draws that do not depend on the batch."""

import math

import pytest
import torch

import genmatch as gm
from genmatch import grids
from genmatch.logits import draw_where, portions
from genmatch.solvers.remask import Psi, ReMDM, ReMDMLoop
from genmatch.solvers.reveal import EntropyBounded, FirstHitting, Threshold, TopK
from genmatch.solvers.trapezoid import ThetaTrapezoidal
from genmatch.solvers.wrappers import ArgmaxFinal, Corrected, ForwardBackward, Gibbs
from genmatch.tensors import uniforms
from tests.toys import TOKEN_SCHEDULES, L, V, chain, full, grid, name_of, seeded, token_data, token_law

F64 = torch.float64
PROCESS = chain("mask")
MODEL = gm.oracle(PROCESS, token_data(), token_law("strong"))


@pytest.mark.parametrize("name", grids.GRIDS)
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_grids_run_from_noise_to_data(name, steps):
    times = gm.time_grid(steps, name)
    assert times.dtype == F64
    assert len(times) == steps + 1
    assert times[0] == 0
    assert times[-1] == 1
    assert bool((times.diff() > 0).all())


def test_the_cosine_grid_is_its_formula():
    angle = math.pi / 2 * torch.arange(9, dtype=F64) / 8
    assert torch.allclose(gm.time_grid(8, "cosine"), 1 - angle.cos(), atol=1e-15)


def test_a_grid_goes_with_any_solver_and_process():
    seen = []

    def model(x, t):
        seen.append(float(t[0]))
        return MODEL(x, t)

    gm.sample(PROCESS, model, 2, steps=4, grid="cosine", solver="algorithm7", seed=0)
    assert seen[1:] == pytest.approx(gm.time_grid(4, "cosine")[:-1].tolist(), abs=1e-6)
    gm.sample(gm.Flow(gm.paths.Gaussian((1,))), lambda x, t: seen.append(float(t[0])) or x, 2, steps=2, grid=lambda n: torch.tensor([0.0, 0.9, 1.0]), seed=0)
    assert seen[-2:] == pytest.approx([0.0, 0.9], abs=1e-6)


@pytest.mark.parametrize(
    ("grid_", "message"),
    [
        ("cosinus", "cosine"),
        (3, "`grid` must be a name or a function"),
        (lambda n: torch.zeros(n + 1), "increase"),
        (object, "calling <class 'object'> with 2 failed"),
    ],
)
def test_wrong_grids_are_refused(grid_, message):
    with pytest.raises(gm.GenmatchError, match=message):
        gm.sample(PROCESS, MODEL, 2, steps=2, grid=grid_)


@pytest.mark.parametrize("schedule", TOKEN_SCHEDULES, ids=name_of)
def test_time_at_inverts_sigma(schedule):
    t = torch.linspace(0, 1, 101, dtype=F64)
    assert torch.allclose(schedule.time_at(schedule.sigma(t)), t, atol=1e-12)
    ends = schedule.time_at(torch.tensor([1.0, 0.0], dtype=F64))
    assert ends.tolist() == [0.0, 1.0]


def test_sharpened_logits_are_their_formulas():
    logits = torch.tensor([[0.5, 0.2, 0.2, 0.1]]).log()
    cold = gm.sharpen(lambda x, t: logits, temperature=0.5)(None, None).softmax(-1)
    assert torch.allclose(cold, logits.exp() ** 2 / (logits.exp() ** 2).sum())
    for top_p, kept in ((0.4, 1), (0.5, 1), (0.51, 2), (0.69, 2), (0.71, 3), (1.0, 4)):
        law = gm.sharpen(lambda x, t: logits, top_p=top_p)(None, None).softmax(-1)[0]
        assert int((law > 0).sum()) == kept, "the token that crosses `top_p` is kept"
        assert float(law.sum()) == pytest.approx(1)
    assert logits.exp().sum() == pytest.approx(1), "the model's output is left alone"


def test_temperature_does_not_change_when_tokens_are_revealed():
    x0 = PROCESS.path.source(500, rng=seeded())
    runs = [gm.simulate(PROCESS, model, x0, grid(0, 1, 4), rng=seeded(1)) for model in (MODEL, gm.sharpen(MODEL, temperature=0.3, top_p=0.9))]
    for x, y in zip(*(run.states for run in runs), strict=True):
        assert torch.equal(x == V, y == V)
    assert not torch.equal(runs[0].states[-1], runs[1].states[-1])


@pytest.mark.parametrize("source", ["mask", "uniform"])
def test_the_final_argmax_is_asked_for_by_name(source):
    process = chain(source)
    model = gm.oracle(process, token_data(), token_law("weak"))
    x = gm.sample(process, model, 200, steps=1, solver=ArgmaxFinal(), seed=0)
    plain = gm.sample(process, model, 200, steps=1, seed=0)
    assert len(plain.unique(dim=0)) > 30
    if source == "mask":
        best = model(torch.full((1, L), V), torch.zeros(1)).argmax(-1)
        assert torch.equal(x, best.expand_as(x))
    first = [
        gm.simulate(process, model, process.path.source(50, rng=seeded()), grid(0, 1, 3), solver=s, rng=seeded(1)).states for s in ("exact", ArgmaxFinal())
    ]
    assert torch.equal(first[0][2], first[1][2])
    assert not torch.equal(first[0][3], first[1][3])


class Divided:
    """A network that says one thing of words that begin with token 0 and another of all others."""

    def __init__(self, other):
        self.other = other

    def __call__(self, x, t):
        logits = MODEL(x, t)
        changed = logits[:, :, self.other]
        return torch.where((x[:, :1, None] == 0).expand_as(logits), logits, changed)


@pytest.mark.parametrize("name", [name for name in gm.solvers.available(PROCESS) if name not in ("threshold", "entropy-bounded", "argmax-final")])
def test_a_draw_does_not_depend_on_what_the_others_in_the_batch_draw(name):
    """The first half of the batch meets another network in its second run; the second half must not notice."""
    n = 40
    x0 = torch.cat([torch.tensor([[1, V, V]]).expand(n // 2, L), torch.tensor([[0, V, V]]).expand(n // 2, L)])
    ends = []
    for other in ([0, 1, 2, 3], [3, 0, 0, 1]):
        run = gm.simulate(PROCESS, Divided(other), x0, torch.tensor([0.3, 0.5, 0.8, 1.0]), solver=name, rng=seeded(5))
        ends.append(run.states[-1])
    if name in ("remdm", "remdm-loop", "psi", "forward-backward", "gibbs"):
        return  # these forget what tells the halves apart
    assert not torch.equal(ends[0][: n // 2], ends[1][: n // 2])
    assert torch.equal(ends[0][n // 2 :], ends[1][n // 2 :])


def test_portions_cover_a_mask_in_order(monkeypatch):
    where = torch.rand(5, 4, 3, generator=seeded()) < 0.5
    logits, uniform = torch.randn(5, 4, 3, 7, generator=seeded()), uniforms(where, rng=seeded(1))
    whole = draw_where(logits, where, uniform)
    parts = portions(where, 3)
    assert all(0 < int(part.sum()) <= 3 for part in parts)
    assert torch.equal(torch.cat([logits[part] for part in parts]), logits[where])
    monkeypatch.setattr("genmatch.logits._PORTION", 20)
    monkeypatch.setattr("genmatch.logits._PIECE", 14)
    assert torch.equal(draw_where(logits, where, uniform), whole)
    assert draw_where(logits, torch.zeros_like(where), uniform).shape == (0,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ThetaTrapezoidal(1.0), r"`theta` must be a number in \(0, 1\)"),
        (lambda: TopK("confidance"), "confidence"),
        (lambda: TopK(k=0), "`k`"),
        (lambda: Threshold(0.0), r"`threshold` must be a number in \(0, 1\]"),
        (lambda: EntropyBounded(-1.0), "`gamma` must be"),
        (lambda: ReMDM(how="loop"), "cap"),
        (lambda: ReMDM(1.5), "`eta` must be"),
        (lambda: ReMDMLoop(at=1.0), "`at` must be a number in"),
        (lambda: ReMDMLoop(share=2), r"`share` must be a number in \[0, 1\]"),
        (lambda: Psi(1.5), "`keep` must be"),
        (lambda: Gibbs(0), "`moves`"),
        (lambda: Corrected(FirstHitting(), Gibbs()), "fixed number of calls"),
        (lambda: ArgmaxFinal("exact"), "`solver` must be a Solver"),
        (lambda: gm.sharpen(MODEL, temperature=0.0), "argmax-final"),
        (lambda: gm.sharpen(MODEL, top_p=0.0), "`top_p`"),
        (lambda: gm.sharpen(None), "callable"),
        (lambda: gm.solvers.resolve(chain("uniform"), "first-hitting"), "`masked`.*solvers that fit: exact"),
        (lambda: gm.solvers.resolve(gm.CTMC(gm.paths.Mixture((2,), 3, source="uniform"), rates="reversal"), "theta-trapezoidal"), "`redrawing`"),
        (lambda: gm.CTMC(gm.paths.Mixture((2,), 3, source="uniform"), rates="reversal").redrawing, "more than redraw"),
        (lambda: gm.solvers.resolve(gm.Flow(gm.paths.Gaussian((2,))), Corrected(gm.solvers.get("exact"), ForwardBackward())), "solvers that fit"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(gm.GenmatchError, match=message):
        make()


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 1000])
def test_a_draw_inverts_the_distribution_function(size, dtype):
    """Each token comes for uniforms between the sums before it and up to it; tokens without weight never do."""
    logits = torch.randn(1, size, dtype=dtype, generator=seeded())
    logits[0, size // 2 :: 3] = -torch.inf if size > 2 else 0.0
    bounds = torch.cat([torch.zeros(1, dtype=F64), (logits[0] - logits.max()).exp().cumsum(-1, dtype=F64)])
    u = torch.rand(2000, dtype=F64, generator=seeded(1))
    u[:2] = torch.tensor([0.0, 1 - 1e-16], dtype=F64)
    tokens = draw_where(logits.expand(2000, 1, size), torch.ones(2000, 1, dtype=torch.bool), u.unsqueeze(-1))
    goal = u * bounds[-1]
    assert bool((bounds[tokens] <= goal + 1e-12).all())
    assert bool((goal < bounds[tokens + 1] + 1e-12).all())
    assert bool(logits[0, tokens].isfinite().all())


def test_renoising_is_the_reverse_kernel():
    """From data at s back to t: each token is kept with probability kappa_t / kappa_s."""
    process, n = chain("uniform"), 20_000
    x = torch.tensor([[0, 1, 2]]).expand(n, L)
    there = process.renoise(x, full(0.8, n), full(0.2, n), rng=seeded())
    kept = 0.25 + 0.75 / V
    share = (there == x).double().mean(0)
    assert bool(((share - kept).abs() < 4 * math.sqrt(kept * (1 - kept) / n)).all())
