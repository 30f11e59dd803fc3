"""Error and standard error of the likelihood of a flow: `python benchmarks/likelihood.py`.

Correlated Gaussian data in four dimensions, as vectors and as images of 2 x 2, whose flow and density are known in closed form; float64, dopri5
at a tolerance of 1e-9. flow_matching's `ODESolver.compute_likelihood` is called as its documentation says: its Hutchinson estimate has
one direction for each sample, no standard error, and takes float32 only, where the tolerance is 1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from common import finish, options
from torch import Tensor

import genmatch as gm

POINTS, TOLERANCE = 128, 1e-9
SHAPES = ((4,), (1, 2, 2))
PROBES = (2, 8, 32, 128)
COVARIANCE = torch.tensor([[1.0, 0.6, 0.2, 0.0], [0.6, 0.8, 0.3, 0.1], [0.2, 0.3, 0.5, -0.2], [0.0, 0.1, -0.2, 0.3]], dtype=torch.float64)
LAW = torch.distributions.MultivariateNormal(torch.zeros(4, dtype=torch.float64), COVARIANCE)


def velocity(x: Tensor, t: Tensor) -> Tensor:
    """(t C - (1 - t) I) (t^2 C + (1 - t)^2 I)^-1 x, of the path t x1 + (1 - t) x0."""
    t = t.reshape(-1, 1, 1)
    one = torch.eye(4, dtype=torch.float64)
    matrix = (t * COVARIANCE - (1 - t) * one) @ torch.linalg.inv(t**2 * COVARIANCE + (1 - t) ** 2 * one)
    return (matrix @ x.flatten(1).unsqueeze(-1)).reshape(x.shape)


def ours(x1: Tensor, probes: int | None) -> tuple[Tensor, Tensor]:
    """log p of each point, and its standard error."""
    flow = gm.Flow(gm.paths.Gaussian(tuple(x1.shape[1:]), dtype=torch.float64))
    found = gm.log_likelihood(flow, velocity, x1, probes=probes, t_end=1 - 1e-12, rtol=TOLERANCE, atol=TOLERANCE, seed=0)
    return found.log_prob, found.standard_error


def theirs(x1: Tensor, exact: bool) -> Tensor:
    """The same of flow_matching."""
    from flow_matching.solver import ODESolver

    def log_noise(x: Tensor) -> Tensor:
        return -0.5 * (x**2 + math.log(2 * math.pi)).flatten(1).sum(-1)

    dtype, tolerance = (torch.float64, TOLERANCE) if exact else (torch.float32, 1e-6)
    torch.manual_seed(0)
    solver = ODESolver(lambda x, t: velocity(x.double(), t.double().expand(len(x))).to(dtype))
    times = torch.tensor([1.0, 0.0], dtype=dtype)
    settings = {"step_size": None, "method": "dopri5", "rtol": tolerance, "atol": tolerance, "time_grid": times}
    return solver.compute_likelihood(x1.to(dtype), log_noise, exact_divergence=exact, **settings)[1].detach()


def rows() -> Iterator[dict[str, object]]:
    """A row for each package, shape and estimate of the divergence."""
    points = LAW.sample((POINTS,))
    exact = LAW.log_prob(points)
    for shape in SHAPES:
        x1 = points.reshape(-1, *shape)
        yield row("genmatch", shape, "exact", lambda x1=x1: ours(x1, None), exact)
        for n in PROBES:
            yield row("genmatch", shape, f"{n} probes", lambda x1=x1, n=n: ours(x1, n), exact)
        for name in ("exact", "1 probe"):
            yield row("flow_matching", shape, name, lambda x1=x1, name=name: (theirs(x1, name == "exact"), None), exact)


def row(package: str, shape: tuple[int, ...], divergence: str, find: Callable[[], tuple[Tensor, Tensor | None]], exact: Tensor) -> dict[str, object]:
    """What one call found: its error, and how well it knows it."""
    setting = {"package": package, "shape": " x ".join(map(str, shape)), "divergence": divergence}
    try:
        found, claimed = find()
    except IndexError as error:
        return setting | {"rms error, nats": f"{type(error).__name__}", "standard error": "", "error in standard errors": ""}
    error = (found - exact).square().mean().sqrt().item()
    if claimed is None or not bool(claimed.any()):
        return setting | {"rms error, nats": error, "standard error": "none" if claimed is None else "0", "error in standard errors": ""}
    size = claimed.square().mean().sqrt().item()
    return setting | {"rms error, nats": error, "standard error": size, "error in standard errors": error / size}


def main() -> None:
    """Measures, and prints a table."""
    chosen = options(__doc__)
    torch.manual_seed(0)
    finish(chosen, likelihood=list(rows()))


if __name__ == "__main__":
    main()
