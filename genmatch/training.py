r"""Training: one loop for every process.

    loss = E_{t, x1, X_t} divergence(target(X_t, t, x1), model(X_t, t)) / size

Its minimiser is the posterior mean of the target, whatever the process: for a flow this is flow matching, for a CTMC it is
the cross-entropy training of a posterior network (Algorithm 8 of the lecture notes on discrete diffusion).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from genmatch.batches import Batch, batches, drop, in_memory
from genmatch.errors import GenmatchError, unknown
from genmatch.models import Predictor, device_of, evaluating, null_of
from genmatch.objectives import OBJECTIVES, Objective, divergence
from genmatch.processes.base import MarkovProcess
from genmatch.settings import Settings
from genmatch.tensors import State, batch_size, tree_map


@dataclass(frozen=True)
class TrainResult:
    """What training made.

    Attributes:
        model: the average of the weights over the last steps, ready to sample from. The model passed in has the last ones.
        losses: training loss of each step, a coordinate.
        validation: pairs (step, validation loss), empty without validation data.
        seconds: time spent.
        settings: the settings used.
    """

    model: torch.nn.Module
    losses: list[float]
    validation: list[tuple[int, float]]
    seconds: float
    settings: dict[str, Any]


def train(
    process: MarkovProcess,
    model: torch.nn.Module,
    data: Any,
    *,
    steps: int,
    validation: Any = None,
    progress: bool = False,
    label: str = "training",
    **settings: Any,
) -> TrainResult:
    """Trains a network to predict the posterior mean of the process's target.

    Args:
        process: what the network is for.
        model: the network, model(x, t, **condition) with `t` of shape (B,); trained in place, on the device where it is.
        data: x1, as a tensor, Dataset or DataLoader; or pairs of x1 and a condition (a tensor or a dictionary of them).
        steps: optimiser steps.
        validation: held-out data in memory, x1 or (x1, condition), for a loss that is comparable from step to step.
        progress: shows a progress bar with the loss.
        label: what the bar calls this run.
        **settings: `batch_size`, `lr`, `warmup`, `lr_schedule` ("cosine" or "constant"), `weight_decay`, `grad_clip`,
            `ema` (decay of the average of the weights), `validate_every` (steps), `seed`; `drop_condition`, the share of samples that
            are told `model.null` instead of their condition, for `gm.guidance.classifier_free`; and `objective`: "divergence", such as the
            cross-entropy of a CTMC, or "elbo", weighted so that the loss is a bound of -log p; see `Settings`.

    Raises:
        GenmatchError: if the data, the settings or the model do not fit, before the first step; or if the loss stops being
            finite.

    Example:
        >>> import genmatch as gm
        >>> process = gm.CTMC(gm.paths.Mixture((2,), vocab_size=3))
        >>> model = gm.nn.MLP(process.space, process.output_shape, width=16, depth=1)
        >>> result = gm.train(process, model, torch.tensor([[0, 1], [2, 0]]), steps=2, seed=0)
        >>> len(result.losses)
        2
    """
    plan = _plan(steps, settings)
    if not isinstance(model, torch.nn.Module):
        raise GenmatchError(f"`model` must be a torch.nn.Module to be trained, got {type(model).__name__}.")
    device = device_of(model)
    order = torch.Generator().manual_seed(plan.seed)
    rng = torch.Generator(device).manual_seed(plan.seed)
    objective = OBJECTIVES[plan.objective]
    stream = _first_checked(process, model, batches(data, process.data_space, plan.batch_size, rng=order), objective)
    held_out = None if validation is None else in_memory(validation, process.data_space)
    null = null_of(model)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=plan.lr, weight_decay=plan.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, plan.lr_factor)
    average = AveragedModel(model, multi_avg_fn=_ema(plan.ema))
    losses: list[float] = []
    checks: list[tuple[int, float]] = []
    start = time.perf_counter()
    model.train()
    with _bar(progress, label, steps) as advance:
        for step in range(1, steps + 1):
            x1, condition = _to(next(stream), device)
            condition = drop(condition, null, plan.drop_condition, rng=rng)
            loss = loss_on(process, model, x1, condition, rng=rng, objective=objective)
            if not bool(torch.isfinite(loss)):
                raise GenmatchError(f"the loss is {loss.item()} at step {step}; lower `lr` (now {plan.lr}) or check the data and the model.")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), plan.grad_clip)
            optimiser.step()
            schedule.step()
            average.update_parameters(model)
            losses.append(loss.item())
            if held_out is not None and (step % plan.validate_every == 0 or step == steps):
                checks.append((step, validation_loss(process, average.module, _to(held_out, device), seed=plan.seed, objective=objective)))
            advance(losses, checks)
    return TrainResult(average.module.eval(), losses, checks, time.perf_counter() - start, asdict(plan))


def loss_on(
    process: MarkovProcess, model: torch.nn.Module, x1: State, condition: dict[str, Any], *, rng: torch.Generator, objective: Objective = divergence
) -> Tensor:
    """The loss of a batch, a scalar in float32 or better: the mean of an objective a coordinate."""
    return objective(process, Predictor(process, model, condition), x1, rng).mean() / process.space.size


def validation_loss(
    process: MarkovProcess, model: torch.nn.Module, data: Batch, *, seed: int = 0, size: int = 1024, objective: Objective = divergence
) -> float:
    """The loss on held-out data at times and noise that are the same at every call with this `seed`."""
    x1, condition = data
    rng = torch.Generator(device_of(model)).manual_seed(seed)
    n = batch_size(x1)
    total = 0.0
    with torch.no_grad(), evaluating(model):
        for i in range(0, n, size):
            part, given = (tree_map(lambda v, i=i: v[i : i + size], value) for value in (x1, condition))
            total += batch_size(part) * loss_on(process, model, part, given, rng=rng, objective=objective).item()
    return total / n


def _plan(steps: int, settings: dict[str, Any]) -> Settings:
    for name in settings:
        if name not in Settings.__dataclass_fields__:
            raise unknown("setting", name, Settings.__dataclass_fields__)
    return Settings(steps=steps, **settings)


def _first_checked(process: MarkovProcess, model: torch.nn.Module, stream: Iterator[Batch], objective: Objective) -> Iterator[Batch]:
    """The stream, after one call of the model on its first batch: a model that does not fit fails before any work."""
    first = next(stream)
    with torch.no_grad(), evaluating(model):
        x1, condition = _to(first, device_of(model))
        loss_on(process, model, x1, condition, rng=torch.Generator(device_of(model)).manual_seed(0), objective=objective)

    def again() -> Iterator[Batch]:
        yield first
        yield from stream

    return again()


def _to(batch: Batch, device: torch.device) -> Batch:
    x1, condition = batch
    return tree_map(lambda v: v.to(device), x1), tree_map(lambda v: v.to(device), condition)


def _ema(decay: float) -> Any:
    """Averages with a decay that rises to `decay`, so that the first weights are forgotten early."""

    def update(averaged: list[Tensor], current: list[Tensor], num_averaged: Tensor | int) -> None:
        n = int(num_averaged)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

    return torch.no_grad()(update)


@contextmanager
def _bar(shown: bool, label: str, steps: int) -> Iterator[Any]:
    """A function to call after each step with the losses so far; it draws a progress bar if `shown`."""
    if not shown:
        yield lambda losses, checks: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task(label, total=steps, loss="")

        def advance(losses: list[float], checks: list[tuple[int, float]]) -> None:
            recent = sum(losses[-50:]) / len(losses[-50:])
            held_out = f", held out {checks[-1][1]:.4f}" if checks else ""
            bar.update(task, advance=1, loss=f"loss {recent:.4f}{held_out}")

        yield advance
