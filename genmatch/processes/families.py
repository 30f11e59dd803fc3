"""Families by name: each makes the usual process of its kind for a space of data.

A family is any callable that takes a `Space` of data and returns a process on it, or raises `GenmatchError` where it does
not fit. `genmatch compare --process package.module:Name` takes one too; a process whose constructor takes the space is one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.paths import Gaussian, Geodesic, Metric, Mixture
from genmatch.paths.blocks import Blocks
from genmatch.paths.sequential import Sequential
from genmatch.processes.autoregressive import Autoregressive
from genmatch.processes.base import MarkovProcess
from genmatch.processes.block import BlockDiffusion
from genmatch.processes.ctmc import CTMC
from genmatch.processes.diffusion import Diffusion
from genmatch.processes.flow import Flow
from genmatch.processes.jump import JumpProcess
from genmatch.processes.level_flow import LevelFlow
from genmatch.processes.product import Product
from genmatch.processes.superposition import Superposition
from genmatch.schedules import CondOT
from genmatch.spaces import Categorical, Euclidean, Grid, Manifold, ProductSpace, Space


def flow(space: Space) -> Flow:
    """Flow matching: an ODE along straight Gaussian paths; the network predicts the velocity."""
    return Flow(Gaussian(_euclidean("flow", space).shape, schedule=CondOT()))


def geodesic(space: Space) -> Flow:
    """Flow matching on a manifold: an ODE along geodesics; the network predicts the tangent velocity.

    Raises:
        GenmatchError: if the space is not a manifold.
    """
    if not isinstance(space, Manifold):
        raise GenmatchError(f"the family `geodesic` needs data on a manifold, such as a Sphere, got {space}.")
    return Flow(Geodesic(space))


def diffusion(space: Space) -> Diffusion:
    """Diffusion: an SDE along the same Gaussian paths; the network predicts the data."""
    return Diffusion(Gaussian(_euclidean("diffusion", space).shape, schedule=CondOT()), noise=fading_noise)


def mask(space: Space) -> CTMC:
    """Masked diffusion: a CTMC in which tokens start masked and are revealed from their posterior."""
    tokens = _categorical("mask", space)
    return CTMC(Mixture(tokens.shape, tokens.vocab_size, source="mask"))


def autoregressive(space: Space) -> Autoregressive:
    """Writing from left to right: the next token is drawn given those before it, by a causal network.

    Raises:
        GenmatchError: if the space is not one of sequences of tokens.
    """
    tokens = _categorical("autoregressive", space)
    if len(tokens.shape) != 1:
        raise GenmatchError(f"the family `autoregressive` needs sequences of tokens, of shape (L,), got {space}.")
    return Autoregressive(Sequential(tokens.size, tokens.vocab_size))


def block(space: Space) -> BlockDiffusion:
    """Block diffusion: blocks of sqrt(L) tokens from left to right, each by masked diffusion, by a block-causal network.

    Raises:
        GenmatchError: if the space has no sequences of tokens.
    """
    tokens = _categorical("block", space)
    if len(tokens.shape) != 1:
        raise GenmatchError(f"the family `block` needs sequences of tokens, of shape (L,), got {space}.")
    return BlockDiffusion(Blocks(tokens.size, tokens.vocab_size, max(1, round(tokens.size**0.5))))


def uniform(space: Space) -> CTMC:
    """Uniform discrete diffusion: a CTMC in which tokens start random and are redrawn from their posterior."""
    tokens = _categorical("uniform", space)
    return CTMC(Mixture(tokens.shape, tokens.vocab_size, source="uniform"))


def uniform_reversal(space: Space) -> CTMC:
    """Uniform discrete diffusion with the time reversal of its noising chain, whose likelihood bound is tight."""
    tokens = _categorical("uniform-reversal", space)
    return CTMC(Mixture(tokens.shape, tokens.vocab_size, source="uniform"), rates="reversal")


def metric(space: Space) -> CTMC:
    """Metric discrete flow: a CTMC in which ordered tokens, such as grey levels, draw near to the data."""
    tokens = _categorical("metric", space)
    return CTMC(Metric(tokens.shape, "absolute", vocab_size=tokens.vocab_size))


def jump(space: Space) -> JumpProcess:
    """Pure jumps on R^d along Gaussian paths; the network predicts a posterior over the levels of each coordinate."""
    grid = _grid("jump", space)
    return JumpProcess(Gaussian(grid.shape), bins=grid.levels)


def flow_jump(space: Space) -> Superposition:
    """Half a flow and half a jump process on one Gaussian path; one posterior over levels serves both."""
    grid = _grid("flow+jump", space)
    path = Gaussian(grid.shape)
    return Superposition([LevelFlow(path, grid.levels), JumpProcess(path, grid.levels)], weights=[0.5, 0.5], heads="shared")


def level_flow(space: Space) -> LevelFlow:
    """Flow matching by classification: the network predicts a posterior over the levels, as for jumps."""
    grid = _grid("level-flow", space)
    return LevelFlow(Gaussian(grid.shape), grid.levels)


def product(space: Space) -> Product:
    """Several modalities together: a flow for vectors, masked diffusion for tokens, geodesics on manifolds.

    Raises:
        GenmatchError: if the space is no product, or a part has no usual process.
    """
    if not isinstance(space, ProductSpace):
        raise GenmatchError(f"the family `product` needs data of several modalities, a ProductSpace, got {space}.")
    return Product(**{name: _usual(part) for name, part in space.parts.items()})


def _usual(space: Space) -> MarkovProcess:
    """The usual process for a space."""
    usual: tuple[tuple[Any, Callable[[Space], MarkovProcess]], ...] = (
        (Euclidean, flow),
        (Categorical, mask),
        (Manifold, geodesic),
        (ProductSpace, product),
    )
    for kind, make in usual:
        if isinstance(space, kind):
            return make(space)
    raise GenmatchError(f"the family `product` knows no process for {space}; build one with `gm.Product`.")


def fading_noise(t: Tensor) -> Tensor:
    """g^2 = 2 (1 - t): noise in proportion to sigma, with which the exact step keeps its order up to t = 1."""
    return torch.sqrt(2 * (1 - t))


def _euclidean(family: str, space: Space) -> Euclidean:
    if not isinstance(space, Euclidean):
        raise GenmatchError(f"the family `{family}` needs data in a Euclidean space, got {space}.")
    return space


def _grid(family: str, space: Space) -> Grid:
    if not isinstance(space, Grid):
        raise GenmatchError(f"the family `{family}` needs data on a Grid of levels, got {space}.")
    return space


def _categorical(family: str, space: Space) -> Categorical:
    if not isinstance(space, Categorical) or space.mask:
        raise GenmatchError(f"the family `{family}` needs data of tokens, a Categorical space without mask, got {space}.")
    return space
