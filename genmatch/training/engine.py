r"""Engines: how one step of training is shared among processes.

    gradient of the mean over a batch  =  sum over processes of the gradients of their rows' share of it

Every process holds the whole network and draws the same batch; it works on the rows rank, rank + size, ... of it, and the gradients are
summed. So the step is that of one process with the whole batch, up to the order of additions. Buckets are laid out by the order of the
parameters and summed after the backward pass: the sum of a resumed run is the same to the last bit, which an order of arrival is not.

`genmatch.training.sharding` is another engine, in which a process holds a part of the network only; `train` knows no more of them than these methods.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.training import checkpoints

_BUCKET = 2**23
"""Numbers that are summed at a time."""


class Engine(ABC):
    """What training asks of the processes that share it.

    Attributes:
        rank: which process this is, counted from 0.
        size: how many there are.
        lockstep: whether a call of the network waits for the same call on every other process.
    """

    rank: int = 0
    size: int = 1
    lockstep: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def distribute(self, model: torch.nn.Module) -> None:  # noqa: B027 (nothing to do is right for most)
        """Leaves to this process the part of a network that it holds; the networks of all are the same before."""

    def undistributed(self, model: torch.nn.Module) -> torch.nn.Module:
        """A network that was distributed, whole on this process."""
        return model

    def rest(self, model: torch.nn.Module) -> None:  # noqa: B027 (nothing to do is right for most)
        """Gives back what a call of a network without a backward pass has left in memory."""

    @contextmanager
    def watching(self, doing: str) -> Iterator[None]:
        """Says that others were lost if they were, in a block in which processes may wait for each other.

        Raises:
            GenmatchError: if another process was lost meanwhile.
        """
        yield

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of this process's share of the loss to its parameters."""
        loss.backward()

    def save(self, root: Path, step: int, files: Mapping[str, checkpoints.Tensors], info: Mapping[str, Any], *, keep: int) -> None:
        """Writes a checkpoint, as `genmatch.training.checkpoints.save`; every process calls it.

        Args:
            root: folder of the run's checkpoints.
            step: optimiser steps done.
            files: tensors by name, for each file.
            info: what the manifest says of the run.
            keep: how many checkpoints stay.

        Raises:
            GenmatchError: on every process, if it cannot be written.
        """
        self.first(lambda: checkpoints.save(root, step, files, info, keep=keep), "saving")

    def first(self, action: Callable[[], Any], what: str) -> None:
        """Does something on the first process only, and raises on every one if that fails.

        Args:
            action: what to do.
            what: its name, for the message.
        """
        error = None
        if self.is_first:
            try:
                action()
            except GenmatchError as caught:
                error = caught
        self.agree(error, what)

    @abstractmethod
    def reduce(self, values: Tensor) -> Tensor:
        """The sum of `values` over the processes."""

    @abstractmethod
    def reduce_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Sums the gradients of the parameters over the processes, in place."""

    @abstractmethod
    def share(self, tensors: Iterable[Tensor]) -> None:
        """Overwrites the tensors of every process with those of the first."""

    @abstractmethod
    def gather(self, values: Tensor) -> Tensor:
        """The values of every process, (size, *values.shape)."""

    @abstractmethod
    def barrier(self) -> None:
        """Waits for the others."""

    def agree(self, error: Exception | None, what: str) -> None:
        """Raises on every process if one has an error, so that none waits for one that has stopped.

        Args:
            error: that of this process, or None.
            what: what was tried, for the message.

        Raises:
            GenmatchError: if another process failed; the error itself, if this one did.
        """
        failed = self.gather(torch.tensor(float(error is not None)))
        if error is not None:
            raise error
        if bool(failed.any()):
            raise GenmatchError(f"process {int(failed.nonzero()[0])} failed while {what}; its own message says why.")


class OneProcess(Engine):
    """Training in this process alone."""

    def reduce(self, values: Tensor) -> Tensor:
        return values

    def reduce_gradients(self, parameters: Iterable[Tensor]) -> None:
        pass

    def share(self, tensors: Iterable[Tensor]) -> None:
        pass

    def gather(self, values: Tensor) -> Tensor:
        return values.unsqueeze(0)

    def barrier(self) -> None:
        pass


class Several(Engine):
    """What engines of torch.distributed share.

    Args:
        device: where gradients are.
        timeout: seconds to wait for another process.
    """

    def __init__(self, device: torch.device, timeout: float) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.device, self.timeout = device, timeout

    def reduce(self, values: Tensor) -> Tensor:
        total = values.to(self.device)
        with self.watching("adding up losses"):
            dist.all_reduce(total)
        return total.to(values.device)

    def share(self, tensors: Iterable[Tensor]) -> None:
        with self.watching("sharing the network"):
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)

    def gather(self, values: Tensor) -> Tensor:
        parts = [torch.empty_like(values, device=self.device) for _ in range(self.size)]
        with self.watching("comparing notes"):
            dist.all_gather(parts, values.to(self.device))
        return torch.stack(parts).to(values.device)

    def barrier(self) -> None:
        self.gather(torch.zeros(1))

    @contextmanager
    def watching(self, doing: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise GenmatchError(
                f"process {self.rank} lost the others while {doing}, after {time.monotonic() - start:.0f} s ({reason}): one was killed, or took longer than "
                f"`timeout` = {self.timeout:g} s; start the same command again, and it goes on from the last checkpoint."
            ) from error


class DataParallel(Several):
    """Training on several processes, each with the whole network."""

    def reduce_gradients(self, parameters: Iterable[Tensor]) -> None:
        parameters = list(parameters)
        # A parameter that no process used keeps no gradient, so that the optimiser leaves it alone as it does in one process.
        used = self.reduce(torch.tensor([float(p.grad is not None) for p in parameters])).tolist()
        for bucket in _buckets([p for p, count in zip(parameters, used, strict=True) if count]):
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            with self.watching("adding up gradients"):
                dist.all_reduce(flat)
            for p, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                p.grad = part.view_as(p).clone()


def _buckets(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    """The parameters in their order, in groups of one dtype and of about `_BUCKET` numbers."""
    bucket: list[Tensor] = []
    for p in parameters:
        if bucket and (p.dtype != bucket[0].dtype or sum(q.numel() for q in bucket) + p.numel() > _BUCKET):
            yield bucket
            bucket = []
        bucket.append(p)
    if bucket:
        yield bucket


@contextmanager
def engine(device: torch.device, timeout: float, several: Callable[[torch.device, float], Engine] = DataParallel) -> Iterator[Engine]:
    """Sets up the engine of this process: several processes if `torchrun` started it, or if torch.distributed is set up already.

    Args:
        device: where the network is.
        timeout: seconds to wait for another process before giving up.
        several: the engine of several processes.

    Raises:
        GenmatchError: if the processes do not find each other.
    """
    if dist.is_available() and dist.is_initialized():
        yield several(device, timeout)
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield OneProcess()
        return
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(seconds=timeout))
    except (RuntimeError, ValueError) as error:
        raise GenmatchError(
            f"the processes of this run do not find each other ({error}); start them with `torchrun --nproc-per-node=N -m genmatch ...`."
        ) from error
    try:
        yield several(device, timeout)
    finally:
        dist.destroy_process_group()


def default_device() -> torch.device:
    """The GPU of this process where there is one, by `LOCAL_RANK`; the CPU otherwise."""
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return device
    return torch.device("cpu")


def is_first_process() -> bool:
    """Whether this is the process that writes the files of a run, before and after an engine is set up."""
    return int(os.environ.get("RANK", "0")) == 0
