r"""The Kolmogorov forward equation, checked

A generator $\mathcal L_t$ carries the law $p_t$ if and only if, on a finite space, $\dot p_t = Q_t\, p_t$. Here are two masked tokens of three kinds: 16 states, all
of them listed, so that both sides can be computed. `gm.check_process` does this, and more, to every process it is given.

A rate that is wrong by a factor, $\dot\kappa$ in place of $\dot\kappa / (1 - \kappa)$, breaks the equation by ten orders of magnitude more than rounding does.
"""

import itertools

import torch
from picture import BLUE, GREY, ORANGE, claim, panels, save, size

import genmatch as gm

GRID = size(61, 9)

data = torch.tensor(list(itertools.product(range(3), repeat=2)))
weights = torch.tensor([5.0, 1, 1, 1, 4, 1, 0, 2, 3]) / 18
process = gm.CTMC(gm.paths.Mixture((2,), vocab_size=3, source="mask"))
states = process.space.enumerate()


def law(t):
    """p_t of all states: the mean over data points of the path's probability, (16,)."""
    pairs = process.path.log_prob(states.repeat_interleave(len(data), 0), t.expand(len(states) * len(data)), data.repeat(len(states), 1))
    return pairs.exp().reshape(len(states), len(data)) @ weights.double()


def flux(t):
    """Q_t p_t with the exact network, (16,)."""
    return gm.marginal_generator(process, data, states, t.expand(len(states)), weights=weights).dense(process.space) @ law(t)


def slope(t, h=1e-3):
    """d/dt p_t by central differences of sixth order."""
    return sum(c * (law(t + k * h) - law(t - k * h)) for k, c in ((1, 45), (2, -9), (3, 1))) / (60 * h)


times = torch.linspace(0.02, 0.98, GRID, dtype=torch.float64)
laws, fluxes, slopes = (torch.stack([f(t) for t in times]) for f in (law, flux, slope))
errors = (slopes - fluxes).abs().amax(1)
wrong = (slopes - (1 - times).unsqueeze(1) * fluxes).abs().amax(1)
claim("largest error of the forward equation", errors.max(), below=1e-8)
claim("smallest error with the wrong rate", wrong.min(), above=1e-3)

figure, (left, right) = panels(2, width=3.9, title="The rates carry the law: dp/dt = Q p, up to rounding")
for i in range(len(states)):
    masks = int((states[i] == 3).sum())
    left.plot(times, laws[:, i], color=(BLUE, GREY, ORANGE)[masks], linewidth=1.4, label=("no mask", "one mask", "two masks")[masks])
    for k in range(0, GRID, max(1, GRID // 6)):
        h = 0.04
        left.plot(times[k] + torch.tensor([-h, h]), laws[k, i] + torch.tensor([-h, h]) * fluxes[k, i], color="black", linewidth=0.8)
left.set(xlabel="time t", ylabel="probability", ylim=(-0.02, 0.6), title="16 states; black: slopes Q p")
handles = dict(zip(*reversed(left.get_legend_handles_labels()), strict=True))
left.legend(handles.values(), handles.keys(), frameon=False, fontsize=8)
right.semilogy(times, wrong, color=ORANGE, linewidth=2)
right.semilogy(times, errors, color=BLUE, linewidth=2)
right.text(0.5, 0.02 * float(wrong[GRID // 2]), "a rate that forgets 1 / (1 - κ)", color=ORANGE, ha="center", fontsize=9)
right.text(0.5, 12 * float(errors[GRID // 2]), "the process", color=BLUE, ha="center", fontsize=9)
right.set(xlabel="time t", ylabel="max |dp/dt - Q p|", ylim=(1e-15, 10), title="error of the equation")
save(figure)
