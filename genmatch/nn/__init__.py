"""Reference networks: any space in, any output shape out. A model of your own needs nothing from here."""

from genmatch.nn.mlp import MLP
from genmatch.nn.transformer import Transformer
from genmatch.registry import networks as _registry

available = _registry.names
get = _registry.get
register = _registry.register

__all__ = ["MLP", "Transformer"]
