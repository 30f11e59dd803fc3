"""Conditional probability paths p_t(x given x1): from noise at t = 0 to one data point at t = 1."""

from genmatch.paths import couplings
from genmatch.paths.base import Path
from genmatch.paths.blocks import Blocks
from genmatch.paths.discrete import Discrete
from genmatch.paths.gaussian import Gaussian
from genmatch.paths.geodesic import Geodesic
from genmatch.paths.metric import Metric
from genmatch.paths.mixture import Mixture
from genmatch.paths.noising import Noising
from genmatch.paths.prediction import Prediction
from genmatch.paths.product import Product
from genmatch.paths.real_mixture import RealMixture
from genmatch.paths.sequential import Sequential
from genmatch.paths.tokens import TokenPath
from genmatch.registry import paths as _registry

available = _registry.names
get = _registry.get
register = _registry.register

__all__ = [
    "Blocks",
    "Discrete",
    "Gaussian",
    "Geodesic",
    "Metric",
    "Mixture",
    "Noising",
    "Path",
    "Prediction",
    "Product",
    "RealMixture",
    "Sequential",
    "TokenPath",
    "couplings",
]
