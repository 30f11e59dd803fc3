"""Markov processes: the interface, and the ones that the package brings."""

from genmatch.processes.autoregressive import Autoregressive
from genmatch.processes.base import MarkovProcess
from genmatch.processes.block import BlockDiffusion
from genmatch.processes.ctmc import CTMC
from genmatch.processes.diffusion import Diffusion
from genmatch.processes.flow import Flow
from genmatch.processes.jump import JumpProcess
from genmatch.processes.langevin import Langevin
from genmatch.processes.level_flow import LevelFlow
from genmatch.processes.posterior import PosteriorProcess
from genmatch.processes.product import Product
from genmatch.processes.superposition import Superposition
from genmatch.registry import processes as _registry

available = _registry.names
get = _registry.get
register = _registry.register

__all__ = [
    "CTMC",
    "Autoregressive",
    "BlockDiffusion",
    "Diffusion",
    "Flow",
    "JumpProcess",
    "Langevin",
    "LevelFlow",
    "MarkovProcess",
    "PosteriorProcess",
    "Product",
    "Superposition",
    "available",
    "get",
    "register",
]
