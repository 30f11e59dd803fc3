r"""What a model says of data

A flow has an exact density: follow it back to the noise, and add up the divergence,

$$
\log p(x_1) = \log p_0(X_0) - \int_0^1 \nabla \cdot u_t(X_t)\, dt .
$$

A process with noise has a bound, the divergence of its path from the path to $x_1$, which is averaged over draws of that path. Both are one call. Here the network is exact
for a mixture of Gaussians: the flow has the density of the mixture, and the bound has no gap but the error of its draws.
"""

import torch
from picture import BLUE, ORANGE, claim, panels, save, size

import genmatch as gm

N, SIDE, DRAWS = size(80, 20), size(61, 9), size(4000, 200)

law = gm.data.GaussianMixture(torch.tensor([[-1.2, 0.0], [0.8, 0.9], [0.7, -1.0]]), torch.tensor([0.35, 0.5, 0.25]))


def model(x, t):
    """The exact prediction of the data."""
    return law.posterior_mean(x, t, 1 - t).to(x.dtype)


flow, diffusion = gm.Flow(gm.paths.Gaussian((2,), dtype=torch.float64), "data"), gm.Diffusion(gm.paths.Gaussian((2,), dtype=torch.float64))
x = law.sample(N, rng=torch.Generator().manual_seed(0)).double()
exact = law.log_prob(x)
found = gm.log_likelihood(flow, model, x, t_end=1 - 1e-8, rtol=1e-8, atol=1e-10).log_prob
claim("flow: largest error of log p, nats", (found - exact).abs().max(), below=1e-6)
bound = gm.elbo(diffusion, model, x, draws=DRAWS, seed=0)
gap = (bound.log_prob - exact).abs() / bound.standard_error
claim("diffusion: largest distance of the bound from log p, in standard errors", gap.max(), below=5)

side = torch.linspace(-2.6, 2.6, SIDE, dtype=torch.float64)
plane = torch.cartesian_prod(side, side)
density = gm.log_likelihood(flow, model, plane).log_prob.exp().reshape(SIDE, SIDE).T
figure, (left, right) = panels(
    2, width=3.9, height=3.5, title="With the exact network, the likelihood of a flow and the bound of a diffusion are both the density"
)
left.contourf(side, side, density.numpy(), levels=12, cmap="Blues")
left.plot(x[:, 0], x[:, 1], ".", color=ORANGE, markersize=3)
left.set(aspect="equal", xticks=[], yticks=[], title="density of the flow, and the points")
ends = [float(exact.min()), float(exact.max())]
right.plot(ends, ends, color="black", linewidth=0.8)
right.errorbar(exact, bound.log_prob, yerr=bound.standard_error, fmt="o", color=ORANGE, markersize=2.5, linewidth=0.7, label="bound of the diffusion")
right.plot(exact, found, "o", color=BLUE, markersize=3, label="flow")
right.set(xlabel="exact log p(x), nats", ylabel="computed", title="each point; bars: the standard error of the draws")
right.legend(frameon=False, fontsize=8, loc="upper left")
save(figure)
