"""Likelihoods: an upper bound of -log p(x1) for every process with noise, and log p(x1) itself for flows.

    elbo                -log p(x1)  <=  int E_{x ~ p_t(. | x1)} kl_rate(output, x, t, x1) dt  +  what both ends cost
    log_likelihood      log p(x1)    =  log p_0(X_0) - int div u_t(X_t) dt    along the trajectory that ends in x1

Bounds of different families, or of different rates, are not comparable, so each carries its name.
"""

from genmatch.likelihood.base import Likelihood
from genmatch.likelihood.bound import elbo
from genmatch.likelihood.flow_density import log_likelihood

__all__ = ["Likelihood", "elbo", "log_likelihood"]
