r"""Couplings: which noise of a batch goes with which data point.

    x_t = a path from x0 to x1,   (x0, x1) ~ pi,   with marginals pi(x0) = p_0 and pi(x1) = data

A flow may follow any joint law pi with these marginals: the marginal velocity still carries p_0 to the data. One that pairs near points
makes the paths straighter, so that fewer steps are enough. Pairs are made within a batch, where both marginals are kept exactly,
by squared distance (`OptimalTransport`, `Sinkhorn`), or they are given, one x0 beside each x1, such as the two ends of the trajectories of
a trained flow (`Pairs`, made by `gm.recipes.reflow`).

Under a condition c the start must be p_0 *given* c, for that is where sampling with c begins. Pairing across conditions breaks this: noise
on the left goes to the class on the left. So pairs are made among data points of equal condition only, which keeps pi(x0 given c) = p_0.

What is known of a path in closed form once x0 is averaged out (its density, the posterior of x1, the score) holds for noise that is
independent of the data, and is refused otherwise.

Source: "Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport" (Tong et al., 2024),
https://arxiv.org/abs/2302.00482.
"""

from genmatch.paths.couplings.base import Coupling, Independent, check_coupling
from genmatch.paths.couplings.pairs import Pairs
from genmatch.paths.couplings.parts import Parts
from genmatch.paths.couplings.transport import OptimalTransport, Sinkhorn, Transport

__all__ = ["Coupling", "Independent", "OptimalTransport", "Pairs", "Parts", "Sinkhorn", "Transport", "check_coupling"]
