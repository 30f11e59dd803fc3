r"""Training: one loop for every process.

    loss = E_{t, x1, X_t} divergence(target(X_t, t, x1), model(X_t, t)) / size

Its minimiser is the posterior mean of the target, whatever the process: for a flow this is flow matching, for a CTMC it is
the cross-entropy training of a posterior network (Algorithm 8 of the lecture notes on discrete diffusion).

What is random in a step is drawn for the whole batch from (seed, step), and each process works on its rows of it; so several processes,
accumulation, or a stop in between leave the numbers as they are.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from genmatch.errors import GenmatchError, checked_seed, unknown
from genmatch.models import Predictor, device_of, evaluating, first_call
from genmatch.processes.base import MarkovProcess, require_process
from genmatch.reprs import described
from genmatch.settings import Settings
from genmatch.tensors import State, batch_size, tree_map
from genmatch.training.batches import Batch, Pair, batches, in_memory, number_of_points
from genmatch.training.engine import DataParallel, Engine, engine
from genmatch.training.interrupts import Interrupts, stop
from genmatch.training.journal import Journal
from genmatch.training.objectives import OBJECTIVES, Objective, divergence
from genmatch.training.progress import shown as progress_shown
from genmatch.training.recompute import recomputing
from genmatch.training.saving import Saver
from genmatch.training.state import TrainState
from genmatch.training.step import Step, StepResult


def _sharded(device: torch.device, timeout: float) -> Engine:
    try:
        from genmatch.training.sharding import Sharded  # with what a process alone need not import
    except ImportError as error:
        raise GenmatchError(f"`sharding` = 'full' needs torch 2.9 or later with torch.distributed ({error}); leave it out.") from error
    return Sharded(device, timeout)


_ENGINES: dict[str, Callable[[torch.device, float], Engine]] = {"none": DataParallel, "full": _sharded}
"""Engines of several processes, by what of the network is cut up."""


@dataclass(frozen=True)
class TrainResult:
    """What training made.

    Attributes:
        model: the average of the weights over the last steps, ready to sample from. The model passed in has the last ones, cut up as
            it was trained if `sharding` is "full".
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

    __repr__ = described


def train(
    process: MarkovProcess,
    model: torch.nn.Module,
    data: Any,
    *,
    steps: int,
    validation: Any = None,
    progress: bool = False,
    label: str = "training",
    checkpoint: str | Path | None = None,
    every: int = 500,
    keep: int = 2,
    resume: bool = False,
    metrics: str | Path | None = None,
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
        checkpoint: folder of checkpoints. Ctrl-C and SIGTERM then save and end the program.
        every: steps between two checkpoints; one more is written at the end.
        keep: how many checkpoints stay.
        resume: goes on from the newest checkpoint that is whole, with a warning that names those that are not; starts where there is none.
        metrics: file of JSON lines with the loss, the learning rate and the norm of the gradient of each step.
        **settings: `batch_size`, `lr`, `warmup`, `lr_schedule` ("cosine" or "constant"), `weight_decay`, `grad_clip`,
            `ema` (decay of the average of the weights), `validate_every` (steps), `seed`; `drop_condition`, the share of samples that
            are told `model.null` instead of their condition, for `gm.guidance.classifier_free`; and `objective`: "divergence", such as the
            cross-entropy of a CTMC, or "elbo", weighted so that the loss is a bound of -log p; see `Settings` for all of them.

    Raises:
        GenmatchError: if the data, the settings, the model or the checkpoint do not fit, before the first step; or if the loss stops
            being finite or explodes, or a checkpoint cannot be written. Checkpoints that were written before stay.

    Example:
        >>> import genmatch as gm
        >>> process = gm.CTMC(gm.paths.Mixture((2,), vocab_size=3))
        >>> model = gm.nn.MLP(process.space, process.output_shape, width=16, depth=1)
        >>> result = gm.train(process, model, torch.tensor([[0, 1], [2, 0]]), steps=2, seed=0)
        >>> len(result.losses)
        2
    """
    plan = _plan(steps, settings)
    require_process(process)
    if not isinstance(model, torch.nn.Module):
        raise GenmatchError(f"`model` must be a torch.nn.Module to be trained, got {type(model).__name__}.")
    saver = Saver(None if checkpoint is None else Path(checkpoint), every, keep, resume)
    device = device_of(model)
    held_out = None if validation is None else in_memory(validation, process.data_space)
    with engine(device, plan.timeout, _ENGINES[plan.sharding]) as together, Interrupts(saver.root is not None) as interrupts:
        state = _fresh(model, plan, number_of_points(data), together)
        saver.begin(state, together)
        objective = OBJECTIVES[plan.objective]
        stream = _first_checked(process, model, batches(data, process.data_space, plan.batch_size, seed=plan.seed, start=state.step), objective)
        together.rest(model)
        step = Step(process, state, together)
        report = _Report(Journal(Path(metrics) if metrics and together.is_first else None, state.step), progress and together.is_first, label)
        _run(state, step, stream, _Validation(process, held_out, objective, device, together), saver, interrupts, report)
        average = together.undistributed(state.average.module)
    return TrainResult(average.eval(), state.losses, state.checks, state.seconds, asdict(plan))


def _run(state: TrainState, step: Step, stream: Iterator[Batch], validate: _Validation, saver: Saver, interrupts: Interrupts, report: _Report) -> None:
    """Steps until the last one, or until a signal to stop comes, after which everything is saved."""
    plan = state.settings
    state.model.train()
    before, start = state.seconds, time.perf_counter()
    with report.shown(state), recomputing(state.model, plan.recompute):
        while state.step < plan.steps:
            result = step.take(next(stream), interrupts, saver.last)
            if state.step % plan.validate_every == 0 or state.step == plan.steps:
                validate(state)
            state.seconds = before + time.perf_counter() - start
            report.step(state, result)
            if result.signal or saver.due(state):
                report.journal.flush()
                saver.save(state, step.together)
            if result.signal:
                raise stop(result.signal)


def loss_on(
    process: MarkovProcess, model: torch.nn.Module, x1: State, condition: dict[str, Any], *, rng: torch.Generator, objective: Objective = divergence
) -> Tensor:
    """The loss of a batch, a scalar in float32 or better: the mean of an objective a coordinate."""
    return objective(process, Predictor(process, model, condition).for_loss, x1, rng, condition).mean() / process.space.size


def validation_loss(process: MarkovProcess, model: torch.nn.Module, data: Pair, *, seed: int = 0, size: int = 1024, objective: Objective = divergence) -> float:
    """The loss on held-out data at times and noise that are the same at every call with this `seed`.

    Args:
        process: what is trained.
        model: the network.
        data: data points and their conditions.
        seed: of times and noise.
        size: data points at a time.
        objective: whose loss it is.
    """
    x1, condition = data
    rng = torch.Generator(device_of(model)).manual_seed(checked_seed(seed))
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


def _fresh(model: torch.nn.Module, plan: Settings, points: int, together: Engine) -> TrainState:
    """The state before the first step, the same on every process: that of the first."""
    together.share([*model.parameters(), *model.buffers()])
    average = AveragedModel(model, multi_avg_fn=_ema(plan.ema))
    for network in (model, average.module):
        together.distribute(network)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=plan.lr, weight_decay=plan.weight_decay)
    scaler = torch.amp.GradScaler(device_of(model).type, enabled=plan.precision == "fp16")
    return TrainState(model, average, optimiser, scaler, plan, points)


def _first_checked(process: MarkovProcess, model: torch.nn.Module, stream: Iterator[Batch], objective: Objective) -> Iterator[Batch]:
    """The stream, after one call of the model on its first batch: a model that does not fit fails before any work."""
    first = next(stream)
    device = device_of(model)
    batch = first.to(device)
    with torch.no_grad(), evaluating(model), first_call(process):
        loss_on(process, model, batch.x1, batch.condition, rng=torch.Generator(device).manual_seed(0), objective=objective)
    return itertools.chain([first], stream)


def _ema(decay: float) -> Any:
    """Averages with a decay that rises to `decay`, so that the first weights are forgotten early."""

    def update(averaged: list[Tensor], current: list[Tensor], num_averaged: Tensor | int) -> None:
        n = int(num_averaged)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

    return torch.no_grad()(update)


@dataclass(frozen=True)
class _Validation:
    """Measures the loss on held-out data, if there are any."""

    process: MarkovProcess
    data: Pair | None
    objective: Objective
    device: torch.device
    together: Engine

    def __call__(self, state: TrainState) -> None:
        if self.data is not None:
            held_out = tree_map(lambda v: v.to(self.device), self.data[0]), tree_map(lambda v: v.to(self.device), self.data[1])
            loss = validation_loss(self.process, state.average.module, held_out, seed=state.settings.seed, objective=self.objective)
            self.together.rest(state.average.module)
            state.checks.append((state.step, loss))


class _Report:
    """Tells of each step: a line of the journal, and a progress bar if it is shown."""

    def __init__(self, journal: Journal, bar: bool, label: str) -> None:
        self.journal, self.bar, self.label = journal, bar, label
        self._advance: Callable[[TrainState], None] = lambda state: None

    @contextmanager
    def shown(self, state: TrainState) -> Iterator[None]:
        """Shows the bar for the time of a block, and closes the journal after it."""
        try:
            if self.bar:
                with _bar(self.label, state) as self._advance:
                    yield
            else:
                yield
        finally:
            self.journal.close()

    def step(self, state: TrainState, result: StepResult) -> None:
        """Called after each step."""
        lr = state.optimiser.param_groups[0]["lr"]
        held_out = {"validation": state.checks[-1][1]} if state.checks and state.checks[-1][0] == state.step else {}
        self.journal.write(step=state.step, loss=result.loss, lr=lr, gradient=result.norm, seconds=round(state.seconds, 3), **held_out)
        self._advance(state)


@contextmanager
def _bar(label: str, state: TrainState) -> Iterator[Callable[[TrainState], None]]:
    """A function to call after each step; it shows how far the training is."""
    with progress_shown(label, state.settings.steps, state.step) as tell:

        def advance(state: TrainState) -> None:
            recent = sum(state.losses[-50:]) / len(state.losses[-50:])
            held_out = f", held out {state.checks[-1][1]:.4f}" if state.checks else ""
            tell(state.step, f"loss {recent:.4f}{held_out}")

        yield advance
