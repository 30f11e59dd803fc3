r"""Infinitesimal generators: what a Markov process does in the next instant.

    (L f)(x) = lim_{h -> 0} (E[f(X_{t+h}) | X_t = x] - f(x)) / h

Three terms span all Markov processes on R^d (the Levy-Khintchine triplet), and the last alone all of them on finite
spaces:

    Drift(u)                u . grad f
    Brownian(g^2)           g^2 / 2  Laplacian f
    Jump(lambda, J)         lambda (E_{y ~ J} f(y) - f(x)), one clock for each coordinate

They add, scale by non-negative weights, and stand side by side in a `KroneckerSum`. Every value here is frozen: it belongs
to one batch of states at one time, which the methods take as `x`.

Source: "Generator Matching" (Holderrieth et al., ICLR 2025), https://arxiv.org/abs/2410.20587, section 4.
"""

from genmatch.destinations import Binned, Categorical, Chained, Destination, Levels, Mixture, PointMass
from genmatch.generators.algebra import Brownian, Drift, Generator, Jump, Sum
from genmatch.generators.kronecker import KroneckerSum

__all__ = ["Binned", "Brownian", "Categorical", "Chained", "Destination", "Drift", "Generator", "Jump", "KroneckerSum", "Levels", "Mixture", "PointMass", "Sum"]
