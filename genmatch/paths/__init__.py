"""Conditional probability paths p_t(x given x1): from noise at t = 0 to one data point at t = 1."""

from genmatch.paths.base import Path
from genmatch.paths.gaussian import Gaussian
from genmatch.paths.mixture import Mixture
from genmatch.paths.product import Product

__all__ = ["Gaussian", "Mixture", "Path", "Product"]
