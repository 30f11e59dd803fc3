"""State spaces: where the states of a Markov process live, and what a valid state looks like.

A space says what shape and dtype a batch of states has, checks one (`validate`), and turns what a user has into one
(`prepare`). A `Manifold` also has geodesics.
"""

from genmatch.spaces.base import Categorical, Euclidean, ProductSpace, Space, TestFunction, check_shape
from genmatch.spaces.grid import Grid
from genmatch.spaces.manifold import Manifold
from genmatch.spaces.so3 import SO3
from genmatch.spaces.sphere import Sphere
from genmatch.spaces.torus import Torus

__all__ = ["SO3", "Categorical", "Euclidean", "Grid", "Manifold", "ProductSpace", "Space", "Sphere", "TestFunction", "Torus", "check_shape"]
