"""Settings of training, runs and comparisons, checked when they are made. Nothing here needs torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from genmatch.errors import GenmatchError, checked_seed, number_in, positive_integer, unknown
from genmatch.registry import networks

OBJECTIVES = ("divergence", "elbo", "streams")
LR_SCHEDULES = ("cosine", "constant")
PRECISIONS = ("float32", "bf16", "fp16")
SHARDINGS = ("none", "full")
_RECOMMENDED = "recommended"


_RANGES = {
    "lr": ("(0, inf)", "1e-3 is the default"),
    "grad_clip": ("(0, inf)", "a large number clips nothing"),
    "timeout": ("(0, inf)", "it is a number of seconds"),
    "warmup": ("[0, inf)", "0 starts at the highest learning rate"),
    "weight_decay": ("[0, inf)", "0 decays nothing"),
    "ema": ("[0, 1)", "0 switches averaging off"),
    "drop_condition": ("[0, 1]", "it is a probability"),
    "explode": ("(1, inf]", "infinity never stops"),
}
"""Where the numbers of `Settings` must lie, and how to mend them."""

FREE = ("accumulate", "timeout", "validate_every", "sharding", "recompute", "compile")
"""Settings that a run may change when it goes on: they leave its numbers as they are, up to the order of additions."""


@dataclass(frozen=True)
class Settings:
    """How to train; the keyword arguments of `train`.

    Attributes:
        steps: optimiser steps.
        batch_size: data points a step, over all processes.
        lr: learning rate at its highest.
        warmup: steps over which it rises.
        lr_schedule: "cosine" falls to zero at the last step, "constant" does not.
        weight_decay: of AdamW.
        grad_clip: largest norm of the gradient.
        ema: decay of the average of the weights; 0 switches averaging off.
        validate_every: steps between two validation losses.
        objective: "divergence", "elbo", or "streams" for block-causal networks.
        drop_condition: share of the samples that are told `model.null` instead of their condition.
        seed: of the order of the data, times and noise.
        accumulate: parts that a process cuts its rows of a batch into; the numbers stay, the memory falls.
        precision: of the network, "float32" for that of its weights, "bf16" or "fp16" for autocast, the latter with a scaled loss; times
            and losses are in float32 or better.
        sharding: "none", each process has the whole network; "full", each has a part of it, of its average and of the moments.
        recompute: blocks of the network forget what they computed and compute it again for the gradient: less memory, more time.
        compile: lets torch.compile make the network faster; the numbers change by rounding.
        explode: training stops if the loss is that many times its usual size, and its size in the beginning.
        timeout: seconds to wait for another process.
    """

    steps: int
    batch_size: int = 128
    lr: float = 1e-3
    warmup: int = 100
    lr_schedule: str = "cosine"
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    ema: float = 0.999
    validate_every: int = 500
    objective: str = "divergence"
    drop_condition: float = 0.0
    seed: int = 0
    accumulate: int = 1
    precision: str = "float32"
    sharding: str = "none"
    recompute: bool = False
    compile: bool = False
    explode: float = 1e4
    timeout: float = 300.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "validate_every", "accumulate"):
            positive_integer(getattr(self, name), name)
        for name, (interval, hint) in _RANGES.items():
            number_in(interval, getattr(self, name), name, hint)
        checked_seed(self.seed)
        if self.objective not in OBJECTIVES:
            raise unknown("objective", str(self.objective), OBJECTIVES)
        if self.lr_schedule not in LR_SCHEDULES:
            raise GenmatchError(f"`lr_schedule` must be 'cosine' or 'constant', got {self.lr_schedule!r}.")
        if self.precision not in PRECISIONS:
            raise unknown("precision", str(self.precision), PRECISIONS)
        if self.sharding not in SHARDINGS:
            raise unknown("sharding", str(self.sharding), SHARDINGS)
        for name in ("recompute", "compile"):
            if not isinstance(getattr(self, name), bool):
                raise GenmatchError(f"`{name}` must be True or False, got {getattr(self, name)!r}.")

    def lr_factor(self, step: int) -> float:
        """Learning rate after `step` steps, as a fraction of `lr`: a linear rise, then a cosine to zero or a constant."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.lr_schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / max(1, self.steps - self.warmup)))


@dataclass(frozen=True)
class RunSettings:
    """What defines a run; two runs with equal settings give the same numbers on one machine.

    Attributes:
        process: name of a family, or `package.module:Name`.
        data: name of a data set, or `package.module:Name`.
        steps: optimiser steps.
        batch_size: data points a step.
        lr: learning rate.
        network: "mlp" or "transformer".
        width: of the network.
        depth: of the network.
        seed: of the weights, the order of the data and the noise.
        condition: whether the network is told the label of a data point, and in one case of ten that there is none.
        objective: "divergence", "elbo", "streams", or "recommended" for what the process recommends.

    The rest is as in `Settings`.
    """

    process: str
    data: str = "digits"
    steps: int = 2500
    batch_size: int = 128
    lr: float = 2e-3
    network: str = "mlp"
    width: int = 256
    depth: int = 3
    seed: int = 0
    condition: bool = False
    warmup: int = Settings.warmup
    lr_schedule: str = Settings.lr_schedule
    weight_decay: float = Settings.weight_decay
    grad_clip: float = Settings.grad_clip
    ema: float = Settings.ema
    objective: str = _RECOMMENDED
    accumulate: int = Settings.accumulate
    precision: str = Settings.precision
    sharding: str = Settings.sharding
    recompute: bool = Settings.recompute
    compile: bool = Settings.compile
    explode: float = Settings.explode
    timeout: float = Settings.timeout

    def __post_init__(self) -> None:
        networks.check(self.network)
        for name in ("width", "depth"):
            positive_integer(getattr(self, name), name)
        Settings(**self.training)

    @property
    def training(self) -> dict[str, Any]:
        """What `train` takes of it; no objective, where it is the process's to recommend one."""
        own = {name: getattr(self, name) for name in Settings.__dataclass_fields__ if hasattr(self, name)}
        return {name: value for name, value in own.items() if (name, value) != ("objective", _RECOMMENDED)}


@dataclass(frozen=True)
class Plan:
    """What to compare.

    Attributes:
        data: name of the data set.
        processes: names of families; every registered one that fits if empty.
        steps: optimiser steps of each family.
        nfe: budgets of network calls a sample.
        seed: of everything.
        batch_size, lr, network, width, depth, condition: the same for each family; see `RunSettings`.
    """

    data: str = "digits"
    processes: tuple[str, ...] = ()
    steps: int = RunSettings.steps
    nfe: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    seed: int = 0
    batch_size: int = RunSettings.batch_size
    lr: float = RunSettings.lr
    network: str = RunSettings.network
    width: int = RunSettings.width
    depth: int = RunSettings.depth
    condition: bool = RunSettings.condition

    def __post_init__(self) -> None:
        if not self.nfe:
            raise GenmatchError("`nfe` must be positive integers, got none; pass e.g. 4 8 16.")
        for n in self.nfe:
            positive_integer(n, "nfe")
        checked_seed(self.seed)
        if len(set(self.processes)) < len(self.processes):
            raise GenmatchError(f"a process is named twice in {self.processes}.")

    def run_settings(self, process: str) -> RunSettings:
        """The settings of one family's run."""
        common = {name: getattr(self, name) for name in ("data", "steps", "batch_size", "lr", "network", "width", "depth", "seed", "condition")}
        return RunSettings(process=process, **common)
