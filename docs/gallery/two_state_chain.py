r"""A chain of two states, in closed form

The smallest process that jumps leaves $a$ at rate $\lambda$ and $b$ at rate $\mu$. Its law obeys $\dot p = Q p$, so

$$
P(X_t = b \mid X_0 = a) = \frac{\lambda}{\lambda + \mu}\bigl(1 - e^{-(\lambda + \mu) t}\bigr) .
$$

`Jump.dense` is the matrix $Q$, and `Jump.step` draws what happens within a short time. Left, what is drawn; right, that it has the law.
"""

import torch
from picture import BLUE, ORANGE, claim, panels, save, size

import genmatch as gm
from genmatch.generators import Jump, PointMass

CHAINS = size(4000, 500)
STEPS = size(200, 50)
TO_B, TO_A, END = 1.5, 0.75, 4.0


def rates(x):
    """The generator at states x, (B, 1): 0 is a, 1 is b."""
    return Jump(torch.tensor([TO_B, TO_A]).double()[x], PointMass(1 - x))


space = gm.spaces.Categorical((1,), vocab_size=2)
Q = rates(space.enumerate()).dense(space)
times = torch.linspace(0, END, STEPS + 1, dtype=torch.float64)
closed = TO_B / (TO_B + TO_A) * (1 - torch.exp(-(TO_B + TO_A) * times))
exact = torch.matrix_exp(times.reshape(-1, 1, 1) * Q)[:, 1, 0]
claim("largest difference of exp(tQ) from the closed form", (exact - closed).abs().max(), below=1e-12)

rng = torch.Generator().manual_seed(1)
states = [torch.zeros(CHAINS, 1, dtype=torch.int64)]
for h in times.diff():
    states.append(rates(states[-1]).step(states[-1], h, rng=rng))
drawn = torch.cat(states, 1).double()  # (chains, times)
claim("largest difference of the simulated share in b", (drawn.mean(0) - closed).abs().max(), below=4 * (0.25 / CHAINS) ** 0.5 + END / STEPS)

figure, (left, right) = panels(2, width=3.9, title="A chain of two states forgets where it began")
for row in range(5):
    left.step(times, drawn[row] * 0.6 + row, where="post", color=BLUE, linewidth=1.5)
    left.text(-0.1, row, "a", ha="right", va="center", fontsize=7)
    left.text(-0.1, row + 0.6, "b", ha="right", va="center", fontsize=7)
left.set(xlabel="time t", yticks=[], title="five chains that start in a")
left.spines["left"].set_visible(False)
right.axhline(TO_B / (TO_B + TO_A), color="black", linewidth=1, linestyle=":")
right.text(END, TO_B / (TO_B + TO_A) + 0.04, "at rest: λ / (λ + μ)", ha="right", va="bottom", fontsize=8)
right.plot(times, closed, color=ORANGE, linewidth=2, label="closed form")
right.plot(times[:: STEPS // 20], drawn.mean(0)[:: STEPS // 20], "o", color=BLUE, markersize=4, label=f"{CHAINS} chains")
right.set(xlabel="time t", ylabel="share in b", ylim=(0, 0.8), title="the law at each time")
right.legend(frameon=False, loc="lower right", fontsize=8)
save(figure)
