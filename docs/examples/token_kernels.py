"""The exact law of each solver for tokens: its one-step kernel on all states, written out, with nothing drawn.

A column of a kernel is the law of the next state given one state, in the order of `process.space.enumerate()`. The kernels
are written from the description of a step, not from the solvers' code: the tests draw from the solvers and compare.
"""

import itertools
import math

import torch

from genmatch import solvers
from genmatch.solvers.reveal import Reveal


def joint(tokens):
    """The law of all positions from independent laws of each, (..., L, S) to (..., S^L)."""
    total = tokens[..., 0, :]
    for j in range(1, tokens.shape[-2]):
        total = (total.unsqueeze(-1) * tokens[..., j, :].unsqueeze(-2)).flatten(-2)
    return total


def redraw(pi, x, q):
    """Tokens that stay with probability 1 - q and are drawn from pi otherwise, (N, L, S) for `q`, (N, L)."""
    stay = torch.nn.functional.one_hot(x, pi.shape[-1]).double()
    return (1 - q).unsqueeze(-1) * stay + q.unsqueeze(-1) * pi


class Chain:
    """A small chain of tokens whose network is exact: everything that a kernel needs.

    Args:
        process: a `CTMC` on a mixture path, with mixture rates.
        model: its network.
    """

    def __init__(self, process, model):
        self.process, self.model = process, model
        self.x = process.space.enumerate()
        self.noise = process.path.is_noise(self.x).double()
        self.source = process.path.source_probs.expand(process.space.size, -1)

    def kappa(self, t):
        return float(self.process.path.schedule.kappa(torch.tensor([t], dtype=torch.float64)))

    def time(self, kappa):
        return float(self.process.path.schedule.time_at(torch.tensor([1 - kappa], dtype=torch.float64)))

    def posterior(self, t, x=None):
        """pi, (N, L, S), at all states or at `x`."""
        x = self.x if x is None else x
        output = self.model(x, torch.full((len(x),), t, dtype=torch.float64))
        missing = self.process.space.num_states - output.shape[-1]
        return torch.nn.functional.pad(output.softmax(-1), (0, missing))

    def kernel(self, solver, t, s):
        """The kernel of one step of `solver`; of the last one that `simulate` takes, if s = 1."""
        solver = solvers.get(solver)
        if s == 1 and not solver.finishes:
            return _exact(self, solver, t, s)
        return _KERNELS[type(solver).__name__](self, solver, t, s)

    def law(self, solver, times, start=None):
        """The law at each time of a grid, from the law `start` at the first one (the source, if that is 0)."""
        p = joint(self.source) if start is None else start
        laws = [p]
        for t, s in itertools.pairwise(times):
            p = self.kernel(solver, t, s) @ p
            laws.append(p)
        return laws


def _exact(chain, solver, t, s):
    return joint(redraw(chain.posterior(t), chain.x, _jump(chain, t, s) * chain.noise)).T


def _jump(chain, t, s):
    return (chain.kappa(s) - chain.kappa(t)) / (1 - chain.kappa(t))


def _rate(chain, t):
    return float(chain.process.path.schedule.rate(torch.tensor([t], dtype=torch.float64)))


def _euler(chain, solver, t, s):
    return joint(redraw(chain.posterior(t), chain.x, (1 - math.exp(-(s - t) * _rate(chain, t))) * chain.noise)).T


def _leave(chain, t, probability):
    """Tokens leave with `probability(exit rate)`, for one of the others."""
    pi = chain.posterior(t)
    stay = pi.gather(-1, chain.x.unsqueeze(-1)).squeeze(-1)
    away = pi.scatter(-1, chain.x.unsqueeze(-1), 0.0) / (1 - stay).clamp(min=1e-300).unsqueeze(-1)
    return joint(redraw(away, chain.x, probability(_rate(chain, t) * (1 - stay) * chain.noise))).T


def _algorithm7(chain, solver, t, s):
    return _leave(chain, t, lambda rate: ((s - t) * rate).clamp(max=1))


def _tau_leaping(chain, solver, t, s):
    return _leave(chain, t, lambda rate: 1 - torch.exp(-(s - t) * rate))


def _two_stages(chain, t, q1, rho, a1, second):
    """A redraw with probability q1, then one towards [a1 pi* - a2 pi]_+ with the probability `second(sum of that)`."""
    before, after = chain.posterior(t), chain.posterior(rho)
    first = joint(redraw(before, chain.x, q1 * chain.noise))
    rates = (a1 * after.unsqueeze(0) - (a1 - 1) * before.unsqueeze(1)).clamp(min=0)
    total = rates.sum(-1)
    n, size, states = chain.x.shape[0], chain.x.shape[1], before.shape[-1]
    # Where nothing is redrawn the law of the redraw does not matter.
    law = rates / total.clamp(min=1e-300).unsqueeze(-1)
    tokens = redraw(law.reshape(-1, size, states), chain.x.repeat(n, 1), (second(total) * chain.noise).reshape(-1, size))
    return torch.einsum("xy,xyz->zx", first, joint(tokens).view(n, n, -1))


def _theta_trapezoidal(chain, solver, t, s):
    theta, duration = solver.theta, math.log((1 - chain.kappa(t)) / (1 - chain.kappa(s)))
    rho = chain.time(1 - (1 - chain.kappa(t)) * math.exp(-theta * duration))
    rest, a1 = (1 - theta) * duration, 1 / (2 * theta * (1 - theta))
    return _two_stages(chain, t, 1 - math.exp(-theta * duration), rho, a1, lambda total: 1 - torch.exp(-rest * total))


def _analytic_trapezoid(chain, solver, t, s):
    rho = (t + s) / 2
    return _two_stages(chain, t, _jump(chain, t, rho), rho, 2.0, lambda total: _jump(chain, rho, s) * torch.ones_like(total))


def _masks(chain):
    return chain.noise.sum(-1).long()


def _first_hitting(chain, solver, t, s):
    """A binomial number of reveals, each at one of the masks with equal chances."""
    masks, r = _masks(chain), _jump(chain, t, s)
    size, pi = chain.x.shape[1], chain.posterior((t + s) / 2)
    chosen = torch.eye(size, dtype=torch.float64).unsqueeze(1) * chain.noise
    one = sum(joint(redraw(pi, chain.x, c)).T * (c.sum(-1) / masks.clamp(min=1)) for c in chosen) + torch.diag((masks == 0).double())
    total, power = torch.zeros_like(one), torch.eye(len(one), dtype=torch.float64)
    for k in range(size + 1):
        chance = torch.tensor([math.comb(m, k) * r**k * (1 - r) ** (m - k) if k <= m else 0.0 for m in masks.tolist()], dtype=torch.float64)
        total, power = total + power * chance, one @ power
    return total


def _reveal(chain, solver, t, s):
    """The positions that are chosen are a function of the state, the number still due, and how ties are broken."""
    # At t = 0 there is no state with data: the posterior of masks does not depend on time.
    masks, where, pi = _masks(chain), chain.noise.bool(), chain.posterior((t + s) / 2)
    logits = pi[..., : chain.process.space.vocab_size].log()
    orders = list(itertools.permutations(range(chain.x.shape[1]))) if solver.score == "random" else [range(chain.x.shape[1])]
    kernels = [torch.eye(len(masks), dtype=torch.float64)]
    for due in range(1, chain.x.shape[1] + 1):
        total = torch.zeros_like(kernels[0])
        for order in orders:
            ties = torch.tensor(order, dtype=torch.float64).expand(chain.x.shape)
            chosen = solver.choose(logits, where, torch.full_like(masks, due), ties).double()
            step = joint(redraw(pi, chain.x, chosen)).T
            rest = (due - chosen.sum(-1)).long()
            total += sum((kernels[k] @ step) * (rest == k) for k in range(due)) + step * (rest == due)
        kernels.append(total / len(orders))
    due = (masks * _jump(chain, t, s) - 1e-9).ceil().long()
    return sum(kernel * (due == k) for k, kernel in enumerate(kernels))


def _remdm(chain, solver, t, s):
    kappa_t, kappa_s = chain.kappa(t), chain.kappa(s)
    return _remasked(chain, t, s, float(solver.share(torch.tensor([kappa_t], dtype=torch.float64), torch.tensor([kappa_s], dtype=torch.float64))))


def _remdm_loop(chain, solver, t, s):
    if not t < solver.at <= s:
        return _exact(chain, solver, t, s)
    kappa = chain.kappa(solver.at)
    hold = _remasked(chain, solver.at, solver.at, min(solver.share, (1 - kappa) / kappa))
    return _exact(chain, solver, solver.at, s) @ torch.linalg.matrix_power(hold, solver.moves) @ _exact(chain, solver, t, solver.at)


def _remasked(chain, t, s, share):
    kappa_t, kappa_s = chain.kappa(t), chain.kappa(s)
    unmask = (kappa_s - (1 - share) * kappa_t) / (1 - kappa_t)
    masked = chain.noise.unsqueeze(-1)
    pi = masked * chain.posterior(t) + (1 - masked) * chain.source
    return joint(redraw(pi, chain.x, unmask * chain.noise + share * (1 - chain.noise))).T


def _psi(chain, solver, t, s):
    pi = redraw(chain.posterior(t), chain.x, chain.noise)
    noised = chain.kappa(s) * pi + (1 - chain.kappa(s)) * chain.source
    ordinary = redraw(pi, chain.x, _jump(chain, t, s) * chain.noise)
    return joint(solver.keep * ordinary + (1 - solver.keep) * noised).T


def _corrected(chain, solver, t, s):
    step = chain.kernel(solver.solver, t, s)
    return _CORRECTIONS[type(solver.corrector).__name__](chain, solver, step, t, s)


def _gibbs(chain, solver, step, t, s):
    """One position after another becomes (1 - kappa) p_0 + kappa times its law given the others."""
    move = torch.zeros_like(step)
    for j in range(chain.x.shape[1]):
        here = torch.arange(chain.x.shape[1]) == j
        asked = chain.process.hidden(chain.x, here.expand_as(chain.x))
        output = chain.model(asked, torch.full((len(asked),), s, dtype=torch.float64))
        law = chain.process.cavity(output, asked, torch.full((len(asked),), s, dtype=torch.float64)).softmax(-1)
        law = torch.nn.functional.pad(law, (0, chain.source.shape[-1] - law.shape[-1]))
        law = chain.kappa(s) * law + (1 - chain.kappa(s)) * chain.source
        move += joint(redraw(law, chain.x, here.double().expand(chain.x.shape))).T / chain.x.shape[1]
    return torch.linalg.matrix_power(move, solver.corrector.calls) @ step


def _forward_backward(chain, solver, step, t, s):
    kept = chain.kappa(t) / chain.kappa(s)
    back = joint(redraw(chain.source.expand(len(chain.x), -1, -1), chain.x, torch.full(chain.x.shape, 1 - kept, dtype=torch.float64))).T
    return step @ back @ step


def _argmax_final(chain, solver, t, s):
    if s < 1:
        return chain.kernel(solver.solver, t, s)
    pi = chain.posterior(t)
    best = torch.nn.functional.one_hot(pi.argmax(-1), pi.shape[-1]).double()
    return joint(redraw(best, chain.x, chain.noise)).T


_CORRECTIONS = {"Gibbs": _gibbs, "ForwardBackward": _forward_backward}
_KERNELS = {
    "Exact": _exact,
    "Euler": _euler,
    "Algorithm7": _algorithm7,
    "TauLeaping": _tau_leaping,
    "ThetaTrapezoidal": _theta_trapezoidal,
    "AnalyticTrapezoid": _analytic_trapezoid,
    "FirstHitting": _first_hitting,
    "ReMDM": _remdm,
    "ReMDMLoop": _remdm_loop,
    "Psi": _psi,
    "Corrected": _corrected,
    "ArgmaxFinal": _argmax_final,
    **{cls.__name__: _reveal for cls in Reveal.__subclasses__()},
}


def ranked_by_the_draw(chain):
    """The law at the end if each call reveals the position whose *sampled* token is the most probable, one position a call.

    Not a solver here: it has the wrong law even with an exact network, which is what this function measures.
    """
    pi, masks = chain.posterior(0.5), chain.noise.bool()
    size, vocab = chain.x.shape[1], chain.process.space.vocab_size
    kernel = torch.diag((masks.sum(-1) == 0).double())
    for words in itertools.product(range(vocab), repeat=size):
        drawn = torch.tensor(words).expand_as(chain.x)
        chances = pi.gather(-1, drawn.unsqueeze(-1)).squeeze(-1)
        weight = torch.where(masks, chances, torch.full_like(chances, 1 / vocab)).prod(-1) * masks.any(-1)
        place = torch.where(masks, chances, -1.0).argmax(-1)
        there = chain.x.scatter(-1, place.unsqueeze(-1), drawn.gather(-1, place.unsqueeze(-1)))
        kernel[chain.process.space.index(there), torch.arange(len(chain.x))] += weight
    return torch.linalg.matrix_power(kernel, size) @ joint(chain.source)
