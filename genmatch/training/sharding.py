r"""The engine in which each of R processes holds 1/R of the network: fully sharded data parallelism, torch's `fully_shard`.

    memory of a process in numbers, for P parameters:   5 P / R  +  the largest block, whole, while it is at work

Weights, their average, gradients and moments are cut along their first axis. A block gathers its weights before it works and gives
them back after; gradients are summed and cut in the backward pass. The elements of a `ModuleList` are blocks, and what is left is one
more. The step is that of `DataParallel`, up to the order of additions.

A process may not call the network when others do not: each would wait for the rest. So every process has rows in every part of every batch, and
outputs are not read lazily.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from genmatch.errors import GenmatchError
from genmatch.training import checkpoints
from genmatch.training.distributed_tensors import whole
from genmatch.training.engine import Several
from genmatch.training.recompute import blocks

_METHODS = ("features", "resume")
"""Ways into a network beside its call."""
_SHARD = "shard-{:05d}-model-00001-of-00001.safetensors"
"""How torch names the file of a process, counted from 1."""
_LOST = ("connection", "timeout", "timed out", "gloo/transport", "nccl communicator")
"""What torch says in its messages when another process is gone."""


class Sharded(Several):
    """Training on several processes, each with a part of the network, of its average and of the moments.

    Args:
        device: of this process.
        timeout: seconds to wait for another process.
    """

    lockstep = True

    def __init__(self, device: torch.device, timeout: float) -> None:
        super().__init__(device, timeout)
        self.mesh: DeviceMesh = init_device_mesh(device.type, (self.size,))
        self._skeletons: dict[int, nn.Module] = {}

    def distribute(self, model: nn.Module) -> None:
        # A copy without weights: a module that was cut cannot be made whole in its place.
        bare = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in model.parameters()}
        self._skeletons[id(model)] = copy.deepcopy(model, dict(bare))
        own = {type(block).__name__ for block in blocks(model) if type(block).__module__.startswith("genmatch.")} | {type(model).__name__}
        for name in sorted(own):
            # torch warns of outputs that are views, which are lost if they are changed in place: a network's is not, nor those of our own blocks.
            warnings.filterwarnings("ignore", rf"FSDP2-wrapped module \(FSDP{name}\)")
        with self.watching("cutting the network up"):
            for block in blocks(model):
                fully_shard(block, mesh=self.mesh)
            # `features` leaves what the head needs behind, which is not called as a module.
            fully_shard(model, mesh=self.mesh, reshard_after_forward=False)
        for part in _cut(model):
            part.set_gradient_divide_factor(1.0)  # the cost of a row is a share of the mean already
            part.set_force_sum_reduction_for_comms(True)  # gloo knows no other
        for name in _METHODS:
            if callable(getattr(type(model), name, None)):
                register_fsdp_forward_method(model, name)

    def undistributed(self, model: nn.Module) -> nn.Module:
        with self.watching("gathering the network"):
            values = {name: whole(value) for name, value in model.state_dict().items()}
        bare = self._skeletons.pop(id(model))
        bare.load_state_dict(values, assign=True)
        return bare

    def rest(self, model: nn.Module) -> None:
        for part in _cut(model):
            part.reshard()

    def reduce_gradients(self, parameters: Iterable[Tensor]) -> None:
        pass  # done in the backward pass

    def backward(self, loss: Tensor) -> None:
        with self.watching("adding up gradients"):
            loss.backward()

    @contextmanager
    def watching(self, doing: str) -> Iterator[None]:
        """As that of other engines; errors of a network that are none of the connection go through."""
        try:
            with super().watching(doing):
                yield
        except GenmatchError as error:
            cause = error.__cause__
            if cause is not None and not any(word in str(cause).lower() for word in _LOST):
                raise cause from None
            raise

    def save(self, root: Path, step: int, files: Mapping[str, checkpoints.Tensors], info: Mapping[str, Any], *, keep: int) -> None:
        part = checkpoints.hidden(root, step)
        self.first(_guarded(root, step, lambda: checkpoints.begin(root, step)), "saving")
        tensors = {f"{file}/{name}": value.detach() for file in checkpoints.CUT for name, value in files[file].items()}
        error, mine = None, torch.zeros(33, dtype=torch.int64)
        try:
            with checkpoints.writing(root, step):
                mine = self._write(part, tensors)
        except GenmatchError as caught:
            error = caught
        self.agree(error, "saving")
        notes = self.gather(mine).tolist()
        listed = {_SHARD.format(i): {"bytes": size, "sha256": bytes(digest).hex()} for i, (size, *digest) in enumerate(notes, 1)}

        def seal() -> None:
            history = checkpoints.write(part / "history.safetensors", files["history"])
            checkpoints.seal(part, step, listed | {"history.safetensors": history}, info, keep=keep)

        self.first(_guarded(root, step, seal), "saving")

    def _write(self, part: Path, tensors: dict[str, Tensor]) -> Tensor:
        """Writes this process's pieces; returns the size of the file and the 32 bytes of its SHA-256."""
        quiet = logging.getLogger("torch.distributed.checkpoint")
        level = quiet.level
        quiet.setLevel(logging.ERROR)
        try:
            save(tensors, storage_writer=HuggingFaceStorageWriter(str(part), save_distributed=True))
        except CheckpointException as error:
            raise OSError("; ".join(str(reason[0]) for reason in error.failures.values())) from error
        finally:
            quiet.setLevel(level)
        path = part / _SHARD.format(self.rank + 1)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        return torch.tensor([path.stat().st_size, *digest], dtype=torch.int64)


def _cut(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def _guarded(root: Path, step: int, action: Callable[[], Any]) -> Callable[[], None]:
    """The action with errors of the file system as those of a checkpoint."""

    def guarded() -> None:
        with checkpoints.writing(root, step):
            action()

    return guarded
