"""Reference networks: any space in, any output shape out. A model of your own needs nothing from here."""

from genmatch.nn.mlp import MLP
from genmatch.nn.transformer import Transformer

__all__ = ["MLP", "Transformer"]
