"""Conditional probability paths p_t(x given x1): from noise at t = 0 to one data point at t = 1."""

from genmatch.paths.base import Path
from genmatch.paths.gaussian import Gaussian
from genmatch.paths.geodesic import Geodesic
from genmatch.paths.mixture import Mixture
from genmatch.paths.prediction import Prediction

__all__ = ["Gaussian", "Geodesic", "Mixture", "Path", "Prediction"]
