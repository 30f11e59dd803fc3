"""State spaces: where the states of a Markov process live, and what a valid state looks like.

A space says what shape and dtype a batch of states has, checks one (`validate`), and turns what a user has into one
(`prepare`). A `Manifold` also has geodesics.
"""

from genmatch.spaces.base import Space, TestFunction
from genmatch.spaces.categorical import Categorical
from genmatch.spaces.euclidean import Euclidean
from genmatch.spaces.grid import Grid
from genmatch.spaces.manifold import Manifold
from genmatch.spaces.product import ProductSpace
from genmatch.spaces.so3 import SO3
from genmatch.spaces.sphere import Sphere
from genmatch.spaces.torus import Torus
from genmatch.spaces.validation import check_shape

__all__ = ["SO3", "Categorical", "Euclidean", "Grid", "Manifold", "ProductSpace", "Space", "Sphere", "TestFunction", "Torus", "check_shape"]
