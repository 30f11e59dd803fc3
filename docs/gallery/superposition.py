r"""A superposition: drift and jump at once

If $\mathcal L^{(1)}$ and $\mathcal L^{(2)}$ carry the same $p_t$, so does every mixture with weights that sum to one,

$$
\mathcal L_t = w\,\mathcal L_t^{\text{flow}} + (1 - w)\,\mathcal L_t^{\text{jump}} .
$$

One network serves both, since both are driven by the posterior of the data's levels. One coordinate over time, and the law of all of them half-way.
"""

import torch
from picture import BLUE, GREEN, GREY, ORANGE, claim, panels, save, size

import genmatch as gm

N, STEPS = size(1000, 150), size(80, 20)

board, view = gm.data.Checkerboard(), gm.data.get("checkerboard").view("levels")
cells = torch.cartesian_prod(view.space.levels, view.space.levels).float()
cells = cells[board.log_prob(cells).isfinite()][:: size(1, 5)]
path = gm.paths.Gaussian((2,))
flow, jumps = gm.LevelFlow(path, view.space.levels), gm.JumpProcess(path, bins=view.space.levels)
both = gm.Superposition([flow, jumps], weights=[0.5, 0.5], heads="shared")

times = torch.linspace(0, 1, STEPS + 1)
half = STEPS // 2
rng = torch.Generator().manual_seed(0)
exact = path.sample(cells[torch.randint(len(cells), (50_000,), generator=rng)], torch.full((50_000,), 0.5), rng=rng)[:, 0].sort().values
figure, axes = panels(4, width=2.6, height=3.0, title="Mixed half and half, a flow and a jump process still follow the one law", sharey=True)
for axis, colour, (name, process) in zip(axes, (BLUE, ORANGE, GREEN), {"flow": flow, "jumps": jumps, "half and half": both}.items(), strict=False):
    rng = torch.Generator().manual_seed(0)
    run = gm.simulate(process, gm.oracle(process, cells), path.source(N, rng=rng), times, solver="euler", rng=rng)
    middle = run.states[half][:, 0].sort().values
    ranks = (torch.arange(N) + 0.5) / N
    gap = (torch.searchsorted(exact, middle) / len(exact) - ranks).abs().max()
    claim(f"{name}: Kolmogorov-Smirnov distance at t = 0.5", gap, below=2 / N**0.5)
    axis.plot(times, torch.stack(run.states)[:, :14, 0], color=colour, linewidth=0.8, alpha=0.8, drawstyle="default")
    axis.set(xlabel="time t", title=name, xlim=(0, 1), ylim=(-3, 3))
    axes[3].hist(middle, bins=40, range=(-3, 3), density=True, histtype="step", orientation="horizontal", color=colour, linewidth=1.4)
axes[3].hist(exact, bins=80, range=(-3, 3), density=True, orientation="horizontal", color=GREY, alpha=0.35)
axes[3].set(xlabel="density", title="all three at t = 0.5")
axes[0].set_ylabel("first coordinate")
save(figure)
