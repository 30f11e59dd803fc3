"""What the recipes for fewer steps gain: `python benchmarks/few_step.py`.

Four measurements, each before and after. Reflow of a trained flow on eight Gaussians: Wasserstein-2 distance of 1,000 samples to as
many held-out points, and straightness. Reflow of a chain and distillation of a masked one by codes, with exact networks and exact
laws. And the second for a network trained on windows of the packaged text: bits under the teacher and the entropy of pairs of
characters, which falls where samples lose variety.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from common import finish, options
from few_step_laws import Paired, code_laws, coded, conditional_correlation, generated, total_correlation, variation

import genmatch as gm
from genmatch.data.corpus import text
from tests.toys import L, V, chain, token_data, token_law

CALLS = (1, 2, 4, 8)
LENGTH = 8


def distance(x: torch.Tensor, y: torch.Tensor) -> float:
    """Wasserstein-2 distance of two samples of equal size."""
    from scipy.optimize import linear_sum_assignment

    cost = torch.cdist(x.double(), y.double()).square()
    return math.sqrt(float(cost[linear_sum_assignment(cost.numpy())].mean()))


def flows(steps: int, n: int) -> Iterator[dict[str, object]]:
    """A flow, and the straightened one of each round, which starts from the network of the one before."""
    (view, *_) = gm.data.get("gaussians").views
    process, data = gm.Flow(gm.paths.Gaussian((2,))), view.train
    torch.manual_seed(0)
    model = gm.nn.MLP(process.space, process.output_shape, width=64, depth=2)
    floor = distance(view.train[:n], view.test[:n])
    for round_ in range(3):
        model = gm.train(process, copy.deepcopy(model), data, steps=steps, batch_size=256, lr=2e-3, ema=0.99, seed=round_).model
        run = gm.simulate(process, model, process.path.source(n, rng=torch.Generator().manual_seed(1)), torch.linspace(0, 1, 101), solver="euler")
        errors = {f"{k} calls": distance(gm.sample(process, model, n, steps=k, solver="euler", seed=1), view.test[:n]) for k in (*CALLS, 32)}
        yield {"rounds": round_, "straightness": gm.recipes.straightness(run), **errors, "data": floor}
        process, data = gm.recipes.reflow(process, model, 20 * n, steps=32, seed=2 + round_)


def chains() -> Iterator[dict[str, object]]:
    """A chain with uniform noise, exactly: each round is paired by 64 steps of the one before."""
    process, law, n = chain("uniform"), token_law("strong"), V**L
    start = torch.full((n,), 1 / n, dtype=torch.float64)
    pairs = start.unsqueeze(-1) * law
    for round_ in range(4):
        model = Paired(process, pairs)
        errors = {f"{k} calls": variation(generated(process, model, torch.linspace(0, 1, k + 1).tolist()) @ start, law) for k in (*CALLS, 64)}
        yield {"rounds": round_, "conditional total correlation, nats": conditional_correlation(pairs, (V,) * L), **errors}
        pairs = (generated(process, model, torch.linspace(0, 1, 65).tolist()) * start).T


def codes(most: int) -> Iterator[dict[str, object]]:
    """A masked chain whose network is told one of K codes, exactly; with one code it is the teacher."""
    process, law = chain("mask"), token_law("strong")
    for k in (1, 4, 16, 64, 256):
        if k <= most:
            laws = code_laws(law, k)
            errors = {f"{calls} calls": variation(coded(process, token_data(), laws, calls), law) for calls in CALLS}
            yield {"codes": k, "mean total correlation, nats": sum(total_correlation(one, (V,) * L) for one in laws) / k, **errors}


def pair_entropy(x: torch.Tensor) -> float:
    """Entropy of the law of two neighbouring characters, in bits."""
    counts = (x[:, :-1] * 1000 + x[:, 1:]).flatten().unique(return_counts=True)[1].double()
    law = counts / counts.sum()
    return float(-(law * law.log2()).sum())


def texts(steps: int, n: int, k: int) -> Iterator[dict[str, object]]:
    """A masked model of windows of text and its student, which goes on from its weights for as many steps again, as a control does."""
    data = text(None, length=LENGTH)
    (view,) = data.views
    process = gm.CTMC(gm.paths.Mixture((LENGTH,), view.space.vocab_size))
    torch.manual_seed(0)
    sizes = {"width": 64, "depth": 2, "heads": 4}
    settings = {"steps": steps, "batch_size": 128, "lr": 3e-3, "ema": 0.995, "seed": 0}
    network = gm.nn.Transformer(process.space, process.output_shape, **sizes)
    teacher = gm.train(process, network, view.train, objective="elbo", **settings).model
    pairs = gm.recipes.distill(process, teacher, 40 * n, k, seed=1)
    student = gm.nn.Transformer(process.space, process.output_shape, labels={"code": k}, **sizes)
    student.load_state_dict(teacher.state_dict(), strict=False)
    longer = gm.train(process, copy.deepcopy(teacher), view.train, objective="elbo", **settings).model
    student = gm.train(process, student, pairs, objective="elbo", **settings).model

    def row(name: str, calls: object, x: torch.Tensor) -> dict[str, object]:
        found = gm.elbo(process, teacher, x, draws=16, seed=0)
        return {"model": name, "calls": calls, "bits under the teacher": found.bits_per_coordinate, "error": found.bits_error, "pair entropy": pair_entropy(x)}

    yield row("held-out text", "", view.test[:n])
    for calls in CALLS:
        for name, model, condition in (
            ("teacher", teacher, None),
            ("teacher, trained as long as the student", longer, None),
            (f"student, {k} codes", student, {"code": torch.arange(n) % k}),
        ):
            yield row(name, calls, gm.sample(process, model, n, steps=calls, solver="random-order", condition=condition, seed=3))


def main() -> None:
    """Measures, and prints the tables."""
    chosen = options(__doc__)
    quick = chosen.quick
    finish(
        chosen,
        flow=list(flows(50 if quick else 1500, 200 if quick else 1000)),
        chain=list(chains()),
        codes=list(codes(16 if quick else 256)),
        text=list(texts(20 if quick else 1500, 128 if quick else 1024, 16 if quick else 256)),
    )


if __name__ == "__main__":
    main()
