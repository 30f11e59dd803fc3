r"""Guidance, and the law that it does not have

Classifier-free guidance is arithmetic on what a network says with and without the condition,

$$
\text{output} = u + w\,(c - u) .
$$

At $w = 1$ that is the condition's law, to rounding. For other weights it is often read as the tempered law $p_c^w\, p_u^{1-w}$. Here two classes on a line, where the exact
network and all laws are known: neither a flow nor a diffusion has it, and they do not agree with each other.
"""

import torch
from picture import BLUE, GREY, ORANGE, claim, panels, save, size

import genmatch as gm

N, STEPS = size(20_000, 1000), size(200, 40)

spread = torch.tensor([0.6, 0.6])
both = gm.data.GaussianMixture(torch.tensor([[-0.6], [0.6]]), spread)
right = gm.data.GaussianMixture(torch.tensor([[0.6]]), spread[:1])


def model(x, t, label=None):
    """The exact prediction of the data, of one class if a label is given."""
    return (both if label is None else right).posterior_mean(x, t, 1 - t).float()


path = gm.paths.Gaussian((1,))
processes = {"flow": (BLUE, gm.Flow(path, "data")), "diffusion": (ORANGE, gm.Diffusion(path, noise=lambda t: 2 * (1 - t).sqrt()))}
line = torch.linspace(-3, 6, 901, dtype=torch.float64)
p_u, p_c = both.log_prob(line.unsqueeze(1)), right.log_prob(line.unsqueeze(1))

figure, axes = panels(3, width=2.9, height=2.8, title="Guidance is exact at w = 0 and w = 1; beyond, it is not the tempered law", sharey=True)
for axis, w in zip(axes, (0.0, 1.0, 3.0), strict=True):
    tempered = (w * p_c + (1 - w) * p_u).softmax(0)
    for name, (colour, process) in processes.items():
        guided = gm.guidance.classifier_free(model, scale=w)
        x = gm.sample(process, guided, N, steps=STEPS, seed=0, condition={"label": torch.ones(N)}).flatten()
        ranks = torch.searchsorted(x.double().sort().values, line) / N
        gap = (ranks - tempered.cumsum(0)).abs().max()
        bound = {"above": 0.05} if w > 1 else {"below": 2 / N**0.5 + 1 / STEPS}
        claim(f"w = {w:g}, {name}: Kolmogorov-Smirnov distance from the tempered law", gap, **bound)
        axis.hist(x.numpy(), bins=70, range=(-3, 4), density=True, histtype="step", color=colour, linewidth=1.4, label=name)
    axis.fill_between(line, tempered / 0.01, color=GREY, alpha=0.3, linewidth=0, label="tempered law")
    axis.set(xlim=(-3, 4), xlabel="x", title=f"w = {w:g}")
axes[0].set_ylabel("density")
axes[0].legend(frameon=False, fontsize=8, loc="upper left")
save(figure)
