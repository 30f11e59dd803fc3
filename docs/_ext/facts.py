"""What the pages of processes say of one, read off it or measured while the page is made."""

from pathlib import Path

import torch
from bibliography import cited, docstrings

import genmatch as gm

PACKAGE = Path(gm.__file__).parent


def solvers(process):
    """A table of the solvers that fit, the recommended one first."""
    print("| solver | order | network calls a step | what it does |\n|---|---|---|---|")
    lines = gm.registry.solvers.describe()
    for name in gm.solvers.available(process):
        solver = gm.solvers.get(name)
        print(f"| `{name}` | {solver.order} | {solver.calls or 'adaptive'} | {lines[name][0]} |")


def likelihood(process):
    """What is known of -log p(x1), in a sentence."""
    if not process.has_noise:
        print("`gm.log_likelihood` follows a trajectory back to the source: exact, up to the solver's error. There is no noise, and no bound is needed.")
    elif process.bound_is_tight:
        print("`gm.elbo` is a **tight** bound: with the exact network it is the entropy of the data.")
    else:
        print("`gm.elbo` is a bound, **not known to be tight**: with the exact network it may lie above the entropy of the data.")


def checked(process):
    """What `gm.check_process` says, in a sentence."""
    report = gm.check_process(process, level="quick")
    outcomes = [result.outcome for result in report.results]
    if report.failures:
        raise ValueError(str(report))
    known = f", {outcomes.count('known')} fails for a reason that the process declares" if "known" in outcomes else ""
    skipped = f", {outcomes.count('skipped')} do not apply" if "skipped" in outcomes else ""
    passed = "all" if set(outcomes) == {"passed"} else f"{outcomes.count('passed')} of"
    print(f"`gm.check_process`: {passed} {len(outcomes)} checks pass{known}{skipped}.")


def frequencies(process, points, weights, names, *, steps=(4, 16, 64), n=4000, seed=0, distance=None, explain=True):
    """A table of how far the frequencies of samples are from those of a few data points, with the exact network.

    Args:
        process: what is simulated.
        points: data points, (N, ...).
        weights: their probabilities, (N,).
        names: solvers.
        steps: numbers of steps of the grid.
        n: samples in each cell.
        seed: of the samples.
        distance: of states from the points, (n, N); Euclidean if None.
        explain: whether a sentence below says what the figures are.
    """
    model = gm.oracle(process, points, weights)
    print("| solver | " + " | ".join(f"{k} step{'s' if k > 1 else ''}" for k in steps) + " |\n|---|" + "---|" * len(steps))
    for name in names:
        row = []
        for k in steps:
            x = gm.sample(process, model, n, solver=name, steps=k, seed=seed)
            near = torch.cdist(x.flatten(1).double(), points.flatten(1).double()) if distance is None else distance(x)
            shares = near.argmin(1).bincount(minlength=len(points)) / n
            # A state that is no data point counts as missing: half of a difference of laws.
            missed = float((near.min(1).values > 0.1).double().mean())
            row.append(f"{max(float((shares - weights).abs().sum() / 2), missed):.3f}")
        print(f"| `{name}` | " + " | ".join(row) + " |")
    if not explain:
        return
    noise = float((weights * (1 - weights) / n).sqrt().sum() / 2)
    print(
        f"\nThe larger of two figures: the total variation between the frequencies of {len(points)} data points and theirs in {n} samples, of which about "
        f"{noise:.3f} is the noise of drawing; and the share of samples more than 0.1 from any data point. The network is exact."
    )


def references(*modules):
    """The works that some modules cite, as a list."""
    found = {}
    for module, text in docstrings(PACKAGE):
        if module.removeprefix("genmatch.") in modules:
            for title, authors, year, url in cited(text):
                found[title] = f"- *{title}*, {authors}, {year}" + (f": [{url.split('//')[1]}]({url})" if url else "")
    print("\n".join(found.values()))
