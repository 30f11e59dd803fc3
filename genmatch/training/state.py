"""What changes while a network is trained, and how it goes into a checkpoint and comes back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from genmatch.errors import GenmatchError
from genmatch.settings import FREE, Settings
from genmatch.training.checkpoints import CUT, Checkpoint
from genmatch.training.distributed_tensors import placed


@dataclass
class TrainState:
    """The network, its average, the optimiser and what was measured so far.

    Attributes:
        model: the network, with the last weights.
        average: the average of its weights.
        optimiser: with its moments.
        scaler: multiplies the loss in half precision; elsewhere by 1.
        settings: of the training.
        points: number of data points, 0 if it is not known: a run goes on with as many.
        step: steps done.
        losses: of each step.
        checks: pairs (step, validation loss).
        seconds: spent, over all starts.
    """

    model: torch.nn.Module
    average: AveragedModel
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    settings: Settings
    points: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    checks: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0

    def info(self) -> dict[str, Any]:
        """What a manifest says of it."""
        return {"settings": asdict(self.settings), "seconds": self.seconds, "data": {"points": self.points}}

    def files(self) -> dict[str, dict[str, Tensor]]:
        """All of it as tensors by name."""
        moments = self.optimiser.state_dict()["state"]
        steps, values = [step for step, _ in self.checks], [value for _, value in self.checks]
        return {
            "model": _tensors(self.model),
            "average": _tensors(self.average),
            "optimizer": {f"{index}.{name}": value for index, state in moments.items() for name, value in state.items()},
            "history": {
                "losses": torch.tensor(self.losses, dtype=torch.float64),
                "validation.steps": torch.tensor(steps, dtype=torch.int64),
                "validation.losses": torch.tensor(values, dtype=torch.float64),
                **{f"scaler.{name}": torch.tensor([float(value)], dtype=torch.float64) for name, value in self.scaler.state_dict().items()},
            },
        }

    def load(self, found: Checkpoint) -> None:
        """Takes everything from a checkpoint, after checking that all of it fits: either all is loaded or nothing.

        Raises:
            GenmatchError: if it belongs to another network, other settings or other data.
        """
        self._same_settings(found)
        like = self.files() | {"optimizer": self._moments()}
        for name, tensors in found.files.items():
            # Moments of parameters that were never used, and the lengths of histories, are not the same in every run.
            _check(found, name, like[name], tensors, fixed=name in ("model", "average"))
        history = found.files["history"]
        steps, values = history["validation.steps"].tolist(), history["validation.losses"].tolist()
        seconds = found.info.get("seconds")
        if len(history["losses"]) != found.step or len(steps) != len(values) or not isinstance(seconds, int | float):
            raise GenmatchError(f"the history in `{found.folder}` is not that of {found.step} steps; delete that checkpoint.")
        files = {name: {key: placed(value, like[name][key]) for key, value in found.files[name].items()} for name in CUT}
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(self._scaler(history))
        self.model.load_state_dict(files["model"])
        self.average.load_state_dict(files["average"])
        self.optimiser.load_state_dict({"state": _by_parameter(files["optimizer"]), "param_groups": self.optimiser.state_dict()["param_groups"]})
        self.step, self.losses, self.checks, self.seconds = found.step, history["losses"].tolist(), list(zip(steps, values, strict=True)), float(seconds)

    def _scaler(self, history: Mapping[str, Tensor]) -> dict[str, Any]:
        was = self.scaler.state_dict()
        return {name: type(value)(history[f"scaler.{name}"].sum()) for name, value in was.items()}

    def _moments(self) -> dict[str, Tensor]:
        """What AdamW keeps of each parameter."""
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        moments = {f"{i}.{name}": p for i, p in enumerate(parameters) for name in ("exp_avg", "exp_avg_sq")}
        return moments | {f"{i}.step": torch.tensor(0.0) for i in range(len(parameters))}

    def _same_settings(self, found: Checkpoint) -> None:
        was, now = found.info.get("settings"), asdict(self.settings)
        if not isinstance(was, dict):
            raise GenmatchError(f"`{found.folder}` does not say with which settings it was made; delete that checkpoint.")
        free = (*FREE, "steps") if self.settings.lr_schedule == "constant" else FREE
        changed = [f"{name}={was.get(name)!r} (now {value!r})" for name, value in now.items() if name not in free and _differ(was.get(name), value)]
        data = found.info.get("data")
        points = data.get("points") if isinstance(data, dict) else None
        if _differ(points, self.points):
            changed.append(f"{points} data points (now {self.points})")
        if changed:
            raise GenmatchError(f"`{found.folder}` is of a run with {', '.join(changed)}; go on with the same, or choose another folder.")


def _tensors(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def _differ(one: Any, two: Any) -> bool:
    """Whether JSON tells them apart: it does not take True for 1."""
    return json.dumps(one) != json.dumps(two)


def _by_parameter(moments: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in moments.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    return state


def _check(found: Checkpoint, file: str, like: Mapping[str, Tensor], tensors: Mapping[str, Tensor], *, fixed: bool) -> None:
    """Names, shapes and types; moments may be missing, but not some of one parameter."""
    where = f"`{found.folder / file}.safetensors`"
    wrong = set(tensors) ^ set(like) if fixed or file == "history" else set(tensors) - set(like)
    for state in _by_parameter(tensors).values() if file == "optimizer" and not wrong else []:
        wrong |= {"exp_avg", "exp_avg_sq", "step"} ^ set(state)
    if wrong:
        raise GenmatchError(f"{where} is of another network: {', '.join(sorted(wrong)[:3])} is in one and not in the other; build the network as before.")
    for name, value in tensors.items():
        shape = value.shape == like[name].shape or (file == "history" and value.dim() == 1)
        if not shape or value.dtype != like[name].dtype:
            raise GenmatchError(
                f"{where} is of another network: `{name}` is {value.dtype} {tuple(value.shape)}, and {like[name].dtype} {tuple(like[name].shape)} here."
            )
