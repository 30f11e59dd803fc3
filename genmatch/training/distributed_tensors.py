"""Tensors of which each process holds a part, torch's `DTensor`, and how they become whole and are cut again."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor


def whole(value: Tensor) -> Tensor:
    """All of a tensor; every process calls this if it is cut up."""
    cut: Any = value
    return cut.full_tensor() if _is_cut(value) else value


def placed(value: Tensor, like: Tensor) -> Tensor:
    """The value as `like` is held, where it is cut up; no process waits for another, as each has all of it.

    Example:
        >>> import torch
        >>> placed(torch.ones(2), torch.zeros(2))
        tensor([1., 1.])
    """
    if not _is_cut(like):
        return value
    from torch.distributed.tensor import distribute_tensor

    cut: Any = like
    return distribute_tensor(value.to(like.device), cut.device_mesh, cut.placements, src_data_rank=None)


def held(value: Tensor) -> int:
    """Bytes of a tensor that this process holds.

    Example:
        >>> import torch
        >>> held(torch.zeros(2))
        8
    """
    cut: Any = value
    return cut.to_local().nbytes if _is_cut(value) else value.nbytes


def _is_cut(value: Tensor) -> bool:
    # Who has made one has imported them, which takes a second that others need not wait for.
    kinds = sys.modules.get("torch.distributed.tensor")
    return kinds is not None and isinstance(value, kinds.DTensor)
