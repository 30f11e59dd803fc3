"""Pictures of paths, samples, trajectories, rate matrices and schedules, drawn with matplotlib, which is imported when it is needed.

Each function draws onto `ax`, or onto axes of its own, and returns the axes: `gm.plot.schedule(gm.schedules.Cosine()).figure.savefig("cosine.png")`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genmatch.animation import require_plotting
from genmatch.errors import GenmatchError, checked_seed, positive_integer
from genmatch.generators import Generator
from genmatch.paths.base import Path
from genmatch.sampling import Run
from genmatch.schedules import Schedule
from genmatch.spaces import Space
from genmatch.tensors import State

__all__ = ["path", "rates", "samples", "schedule", "trajectories"]

_TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)
_SHOWN = 64
"""Sequences of tokens, and lines of trajectories, that are drawn at most."""

_NAMED = 32
"""States that are named at the axes of a rate matrix at most."""


def schedule(of: Schedule, *, ax: Any = None) -> Any:
    """alpha and sigma of a schedule over time, or of the path of one.

    Args:
        of: a schedule, or a path that has one.
        ax: matplotlib axes; new ones by default.

    Returns:
        The axes.

    Raises:
        GenmatchError: if there is no schedule.
    """
    found = getattr(of, "schedule", of)
    if not isinstance(found, Schedule):
        raise GenmatchError(f"`of` must be a Schedule or a path with one, got {of!r}; pass e.g. `gm.schedules.CondOT()`.")
    ax = _axes(ax)
    t = torch.linspace(0, 1, 201, dtype=torch.float64)
    ax.plot(t, found.alpha(t), label=r"$\alpha_t$, data")
    ax.plot(t, found.sigma(t), label=r"$\sigma_t$, noise")
    ax.set(xlabel="t", title=str(found), xlim=(0, 1))
    ax.legend(frameon=False)
    return ax


def path(of: Path, x1: State, *, times: Sequence[float] = _TIMES, n: int = 1000, seed: int = 0, ax: Any = None) -> Any:
    """Draws of a conditional path p_t(x | x1): where it puts its states on the way to one data point.

    A law on one real coordinate is drawn as histograms, one on more as points of the first two coordinates, one on tokens as the probability of
    each token at the first position over time.

    Args:
        of: the path.
        x1: the data point, with or without a batch axis of one.
        times: in [0, 1].
        n: draws at each time.
        seed: of them.
        ax: matplotlib axes; new ones by default.

    Returns:
        The axes.
    """
    one = _one(of, x1)
    n = positive_integer(n, "n")
    rng = torch.Generator().manual_seed(checked_seed(seed))
    many = one.expand(n, *one.shape[1:])
    x0 = of.start(many, rng=rng)
    drawn = [of.sample(many, torch.full((n,), float(t), dtype=torch.float64), x0=x0, rng=rng).flatten(1) for t in times]
    ax = _axes(ax)
    colours = _colours(len(times))
    if not drawn[0].is_floating_point():
        _token_law(ax, torch.stack([row[:, 0] for row in drawn]), times)
    else:
        for states, t, colour in zip(drawn, times, colours, strict=True):
            if states.shape[1] == 1:
                ax.hist(states[:, 0].numpy(), bins=60, density=True, histtype="step", color=colour, label=f"t = {t:g}")
            else:
                ax.scatter(states[:, 0].numpy(), states[:, 1].numpy(), s=3, alpha=0.5, linewidths=0, color=colour, label=f"t = {t:g}")
        _name_coordinates(ax, drawn[0].shape[1])
        ax.legend(frameon=False, markerscale=3)
    ax.set_title(str(of), fontsize=9)
    return ax


def samples(x: Tensor, *, ax: Any = None) -> Any:
    """States: a histogram of one real coordinate, points of the first two, images of shape (B, C, H, W), or tokens as rows of colours.

    Args:
        x: states, (B, *shape).
        ax: matplotlib axes; new ones by default.

    Returns:
        The axes.
    """
    x = _tensor(x)
    ax = _axes(ax)
    if not x.is_floating_point():
        ax.imshow(x[:_SHOWN].flatten(1).numpy(), aspect="auto", interpolation="nearest", cmap="viridis")
        ax.set(xlabel="position", ylabel="sample")
    elif x.dim() == 4:
        ax.imshow(_sheet(x[:_SHOWN]).numpy(), cmap="gray_r", interpolation="nearest")
        ax.set_axis_off()
    elif x.flatten(1).shape[1] == 1:
        ax.hist(x.flatten().numpy(), bins=60, density=True)
        ax.set(xlabel="x", ylabel="density")
    else:
        flat = x.flatten(1)
        ax.scatter(flat[:, 0].numpy(), flat[:, 1].numpy(), s=4, alpha=0.6, linewidths=0)
        _name_coordinates(ax, flat.shape[1])
    return ax


def trajectories(run: Run, *, n: int = _SHOWN, ax: Any = None) -> Any:
    """The first trajectories of a simulation: one coordinate over time, two in the plane, or the tokens of the first one over time.

    Args:
        run: what `gm.simulate` returned.
        n: how many at most; of tokens, the first.
        ax: matplotlib axes; new ones by default.

    Returns:
        The axes.
    """
    states = torch.stack([_tensor(x).flatten(1)[: positive_integer(n, "n")] for x in run.states])
    times = run.times.numpy()
    ax = _axes(ax)
    if not states.is_floating_point():
        ax.pcolormesh(times, torch.arange(states.shape[2]).numpy(), states[:, 0].mT.numpy(), shading="nearest", cmap="viridis")
        ax.invert_yaxis()
        ax.set(xlabel="t", ylabel="position")
    elif states.shape[2] == 1:
        ax.plot(times, states[:, :, 0].numpy(), linewidth=0.8, alpha=0.7)
        ax.set(xlabel="t", ylabel="x")
    else:
        ax.plot(states[:, :, 0].numpy(), states[:, :, 1].numpy(), linewidth=0.6, alpha=0.5, color="#7f7f7f")
        for row, label, colour in ((0, f"t = {times[0]:g}", "#56B4E9"), (-1, f"t = {times[-1]:g}", "#D55E00")):
            ax.scatter(states[row, :, 0].numpy(), states[row, :, 1].numpy(), s=8, color=colour, label=label, zorder=2)
        _name_coordinates(ax, states.shape[2])
        ax.legend(frameon=False)
    return ax


def rates(of: Generator | Tensor, space: Space | None = None, *, ax: Any = None) -> Any:
    """A rate matrix Q[y, x] from state x to state y as a heat map: red is entering, blue is leaving, white is zero.

    Args:
        of: a generator of jumps at every state of a small finite space, at `space.enumerate()`, or the matrix itself, (S, S).
        space: where the states of the generator live, such as `process.space`.
        ax: matplotlib axes; new ones by default.

    Returns:
        The axes.

    Raises:
        GenmatchError: if the generator has no rate matrix, or there is no space for one.
    """
    if isinstance(of, Generator) and space is None:
        raise GenmatchError("the rate matrix of a generator needs the `space` of its states, such as `process.space`.")
    matrix = of if isinstance(of, Tensor) else of.dense(space)  # type: ignore[arg-type]
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
        raise GenmatchError(f"a rate matrix must have shape (S, S), got {tuple(matrix.shape)}; pass `generator.dense(space)`.")
    ax = _axes(ax)
    image = ax.imshow(matrix.detach().double().numpy(), cmap="RdBu_r", interpolation="nearest", **_centred(matrix))
    ax.figure.colorbar(image, ax=ax, label="rate")
    ax.set(xlabel="from state", ylabel="to state")
    if space is not None and len(matrix) <= _NAMED:
        names = ["".join(map(str, row)) for row in space.enumerate().flatten(1).tolist()]
        ax.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        ax.set_yticks(range(len(names)), names, fontsize=7)
    return ax


def _centred(table: Tensor) -> dict[str, float]:
    largest = float(table.detach().abs().max()) or 1.0
    return {"vmin": -largest, "vmax": largest}


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    require_plotting()
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(5, 4), layout="constrained")[1]


def _one(of: Path, x1: State) -> Tensor:
    if not isinstance(of, Path):
        raise GenmatchError(f"`of` must be a path, got {of!r}; pass e.g. `gm.paths.Gaussian((2,))` or `process.path`.")
    shape = getattr(of.data_space, "shape", None)
    if not isinstance(x1, Tensor) or shape is None:
        raise GenmatchError(f"`x1` must be a data point of {of.data_space} as a tensor, got {type(x1).__name__}; draw each part of a product by itself.")
    one = x1.unsqueeze(0) if tuple(x1.shape) == tuple(shape) else x1
    of.data_space.validate(one, "x1")
    return one[:1]


def _tensor(x: Any) -> Tensor:
    if not isinstance(x, Tensor) or x.dim() < 2:
        found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise GenmatchError(f"states must be a tensor with shape (B, *shape), got {found}; of a product pass one part, such as `x['image']`.")
    return x.detach().cpu()


def _token_law(ax: Any, tokens: Tensor, times: Sequence[float]) -> None:
    """The share of each token, (T, n) to (T, V), as stacked areas over time."""
    size = int(tokens.max()) + 1
    shares = torch.stack([torch.bincount(row, minlength=size) / len(row) for row in tokens])
    ax.stackplot(list(times), *shares.mT.numpy(), labels=[str(token) for token in range(size)])
    ax.set(xlabel="t", ylabel="probability at the first position", xlim=(min(times), max(times)), ylim=(0, 1))
    ax.legend(frameon=False, title="token", fontsize=8, ncols=max(1, size // 8))


def _sheet(images: Tensor) -> Tensor:
    """Images (B, C, H, W) as one, of their first channel, with a pixel between them."""
    columns = max(1, round(len(images) ** 0.5))
    rows = -(-len(images) // columns)
    padded = images.new_full((rows * columns, images.shape[2] + 1, images.shape[3] + 1), float(images.min()))
    padded[: len(images), 1:, 1:] = images[:, 0]
    return padded.reshape(rows, columns, *padded.shape[1:]).transpose(1, 2).reshape(rows * padded.shape[1], -1)


def _colours(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["viridis"](0.9 * i / max(1, count - 1)) for i in range(count)]


def _name_coordinates(ax: Any, size: int) -> None:
    if size == 1:
        ax.set(xlabel="x", ylabel="density")
    else:
        ax.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
