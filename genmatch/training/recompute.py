r"""Blocks that forget what they computed and compute it again in the backward pass: activation checkpointing.

    memory of activations of n blocks  =  n inputs + one block's activations,   for one more forward pass

The elements of a `ModuleList` are blocks; a network without any is one block. The gradients are the same: dropout draws again what it
drew. Source: "Training Deep Nets with Sublinear Memory Cost" (Chen et al., 2016), https://arxiv.org/abs/1604.06174.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.utils.checkpoint import checkpoint


def blocks(model: nn.Module) -> list[nn.Module]:
    """The outermost elements of lists of modules that can be called and have parameters.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 2), nn.ModuleList([nn.Linear(2, 2)]))
        >>> blocks(net)
        [Linear(in_features=2, out_features=2, bias=True)]
    """
    found: list[nn.Module] = []
    for child in model.children():
        parts = [part for part in child if _callable(part)] if isinstance(child, nn.ModuleList) else []
        found += parts or blocks(child)
    return found


@contextmanager
def recomputing(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Computes the blocks of a network again in the backward pass, for the time of a `with`, if that is wanted."""
    changed = (blocks(model) or [model]) if wanted else []
    for block in changed:
        # On the instance, so that its names and what others hang on its call stay.
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in changed:
            del block.forward


def _callable(module: nn.Module) -> bool:
    return type(module).forward is not nn.Module.forward and any(True for _ in module.parameters())
