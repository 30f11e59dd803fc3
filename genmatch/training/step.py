r"""One step of training: draws for the whole batch, gradients of this process's rows of it, one move of the optimiser.

    gradient = (1 / (B size)) sum over parts p of the gradient of sum over rows p, p + P, p + 2 P, ... of the cost

with P parts: one for each process and piece of the accumulation. Rows are dealt out like cards, so that each part has times from all
of [0, 1).

In half precision (fp16) the cost is multiplied by a scale before the backward pass and the gradient divided by it after, so that small
gradients do not vanish; a step whose gradient overflows is left out and the scale halved. Source: "Mixed Precision Training"
(Micikevicius et al., 2018), https://arxiv.org/abs/1710.03740.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genmatch import draws
from genmatch.errors import GenmatchError
from genmatch.models import Predictor, device_of, null_of
from genmatch.processes.base import MarkovProcess
from genmatch.tensors import State, batch_size, precise, tree_map
from genmatch.training.batches import Batch, drop
from genmatch.training.distributed_tensors import whole
from genmatch.training.engine import Engine
from genmatch.training.interrupts import Interrupts
from genmatch.training.objectives import OBJECTIVES, Draw
from genmatch.training.state import TrainState

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_USUAL = 100
"""Losses of which the median is the usual size."""
_SMALLEST = 1.0
"""The scale of a loss at which a gradient that is not finite is no overflow; other precisions have it always."""
_EARLIEST = 20
"""Losses before which there is no usual size."""


@dataclass(frozen=True)
class StepResult:
    """What a step was.

    Attributes:
        loss: over the whole batch, a coordinate.
        norm: of the gradient before it was clipped.
        signal: the highest number of a signal to stop that any process has received, 0 for none.
    """

    loss: float
    norm: float
    signal: int


class Step:
    """The step of a process with a network.

    Args:
        process: what is learned.
        state: changed by each step.
        together: the processes that share it.

    Raises:
        GenmatchError: if a batch has fewer rows than there are parts.
    """

    def __init__(self, process: MarkovProcess, state: TrainState, together: Engine) -> None:
        self.process, self.state, self.together = process, state, together
        self.plan = state.settings
        self.device = device_of(state.model)
        self.objective = OBJECTIVES[self.plan.objective]
        self.parts = together.size * self.plan.accumulate
        if self.parts > self.plan.batch_size:
            raise GenmatchError(
                f"`batch_size` = {self.plan.batch_size} cannot be cut into {self.parts} parts, `accumulate` = {self.plan.accumulate} for each of "
                f"{together.size} processes; it counts the data points of all of them together."
            )
        self.null = null_of(state.model)
        self.parameters = [p for p in state.model.parameters() if p.requires_grad]
        # Compiling a call leaves the network, and the names of its weights, as they are.
        self.network = torch.compile(state.model) if self.plan.compile else state.model

    def take(self, batch: Batch, interrupts: Interrupts, last: str) -> StepResult:
        """Goes one step down the loss of a batch; nothing changes if it is refused.

        Args:
            batch: the whole batch, the same on each process.
            interrupts: signals to stop, that this process has received.
            last: where the last checkpoint is, for messages.

        Raises:
            GenmatchError: if the loss or its gradient is not finite, or explodes.
        """
        state, plan = self.state, self.plan
        index = state.step
        for group in state.optimiser.param_groups:
            group["lr"] = plan.lr * plan.lr_factor(index)
        state.optimiser.zero_grad(set_to_none=True)
        total, trouble = self._gradients(batch.to(self.device), index)
        notes = torch.zeros(2, dtype=torch.float64)
        notes[0], notes[1] = float(trouble is not None), interrupts.received
        everyone = self.together.gather(notes)
        loss = float(self.together.reduce(total.cpu()))
        self._refuse(trouble, everyone[:, 0], loss, last)
        self.together.reduce_gradients(self.parameters)
        state.scaler.unscale_(state.optimiser)
        norm = float(whole(torch.nn.utils.clip_grad_norm_(self.parameters, plan.grad_clip)))
        if math.isfinite(norm):
            state.scaler.step(state.optimiser)
            state.scaler.update()
            state.average.update_parameters(state.model)
        elif state.scaler.get_scale() > _SMALLEST:
            # Not by what the scaler saw, which is this process's part of the gradient only.
            state.scaler.update(state.scaler.get_scale() / 2)
        else:
            raise GenmatchError(f"the gradient is {norm} at step {index + 1}, and the loss is {loss:.6g}; {self._mend(last)}")
        state.losses.append(loss)
        state.step += 1
        return StepResult(loss, norm, int(everyone[:, 1].max()))

    def _gradients(self, batch: Batch, index: int) -> tuple[Tensor, str | None]:
        """The loss of this process's rows, float64, with its gradients; and what is wrong with them."""
        n = batch_size(batch.x1)
        rng = draws.rng(self.plan.seed, "training", index, self.device)
        drawn = self.objective.draw(self.process, batch.x1, batch.condition, rng)
        told = drop(batch.condition, self.null, self.plan.drop_condition, rng=draws.rng(self.plan.seed, "conditions", index, self.device))
        total, trouble = torch.zeros((), dtype=torch.float64, device=self.device), None
        if n < self.parts and self.together.lockstep:
            raise GenmatchError(
                f"a batch of {n} data points cannot be cut into {self.parts} parts, one for each process at least; leave out the last of a loader."
            )
        for part in range(self.together.rank, self.parts, self.together.size):
            rows = slice(part, None, self.parts)
            if part >= n:
                continue
            condition = tree_map(lambda v, rows=rows: v[rows], told)
            seeded = draws.globally(self.plan.seed, f"network {part} of {self.parts}", index, self.device)
            with seeded, self.together.watching("calling the network"):
                cost = self.objective.cost(self.process, self._predict(condition), drawn.part(rows))
            total += cost.detach().double().sum()
            if not bool(torch.isfinite(cost).all()):
                trouble = trouble or _where(cost, drawn.part(rows), batch.index[rows])
                if not self.together.lockstep:
                    break
            self.together.backward(self.state.scaler.scale(cost.sum() / (n * self.process.space.size)))
        return total / (n * self.process.space.size), trouble

    def _predict(self, condition: dict[str, Tensor]) -> Callable[[State, Tensor], State]:
        predictor = Predictor(self.process, self.network, condition)
        if self.together.lockstep or self.plan.compile or self.plan.precision in _AUTOCAST:
            return lambda x, t: tree_map(precise, self._whole(predictor, x, t))
        return predictor.for_loss

    def _whole(self, predictor: Predictor, x: State, t: Tensor) -> State:
        """All outputs at once: what a part of them costs is not known to other processes, nor to a compiler."""
        half = _AUTOCAST.get(self.plan.precision)
        with torch.autocast(self.device.type, dtype=half or torch.bfloat16, enabled=half is not None):
            return predictor(x, t)

    def _refuse(self, trouble: str | None, troubled: Tensor, loss: float, last: str) -> None:
        """Stops every process if the loss of one is not finite, or the loss of all is far beyond what it was."""
        step, rank = self.state.step + 1, self.together.rank
        if trouble is not None:
            raise GenmatchError(f"the loss is {loss} at step {step} on process {rank}: {trouble}; {self._mend(last)}")
        if bool(troubled.any()):
            raise GenmatchError(f"the loss of process {int(troubled.nonzero()[0])} is not finite at step {step}; its own message says where.")
        losses = self.state.losses
        if len(losses) >= _EARLIEST:
            usual = max(statistics.median(map(abs, some)) for some in (losses[:_EARLIEST], losses[-_USUAL:]))
            if abs(loss) > self.plan.explode * usual:
                raise GenmatchError(
                    f"the loss is {loss:.4g} at step {step}, {abs(loss) / usual if usual else math.inf:.2g} times its usual size; {self._mend(last)}"
                )

    def _mend(self, last: str) -> str:
        return f"lower `lr` (now {self.plan.lr}) or check the data and the model. The weights are those before this step; {last}."


def _where(cost: Tensor, drawn: Draw, index: Tensor) -> str:
    """Which rows of a batch are not finite."""
    bad = ~torch.isfinite(cost)
    t, points = drawn.t[bad], index[bad.to(index.device)].tolist()
    named = ", ".join(map(str, points[:8])) + (", ..." if len(points) > 8 else "")
    return f"{len(points)} of {len(cost)} points of its batch, at t from {t.min():.4g} to {t.max():.4g}, data points {named}"
