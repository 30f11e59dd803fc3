"""Exact laws of processes of few steps, on chains small enough to list all states: nothing is drawn or trained."""

import torch
from token_kernels import Chain, joint

import genmatch as gm


class Paired:
    """The exact network of a chain whose noise is paired with its data: the posterior mean under the joint law of both.

    Args:
        process: a `CTMC` on a mixture path whose source is not the mask.
        law: of pairs, [noise, data], (S, S), in the order of `process.space.enumerate()`.
    """

    def __init__(self, process, law):
        self.path, self.law, self.states = process.path, law, process.space.enumerate()
        self.vocab = process.space.vocab_size

    def __call__(self, x, t):
        kappa = self.path.schedule.kappa(t).reshape(-1, 1, 1, 1)
        same = (x.unsqueeze(1) == self.states).double()
        # [sample, noise, data]: the probability of the state, token by token.
        chance = ((1 - kappa) * same.unsqueeze(2) + kappa * same.unsqueeze(1)).prod(-1) * self.law
        weights = chance.sum(1)
        tokens = torch.nn.functional.one_hot(self.states, self.vocab).double()
        total = torch.einsum("bs,slv->blv", weights, tokens)
        # A state that no pair leads to: anything will do.
        return torch.where(weights.sum(-1).reshape(-1, 1, 1) > 0, total, 1.0).log()


def generated(process, model, times, solver="exact"):
    """The law of the data given each noise under a solver, [data, noise], (S, S)."""
    chain = Chain(process, model)
    return chain.law(solver, times, torch.eye(len(chain.x), dtype=torch.float64))[-1]


def code_laws(law, codes):
    """p(x1 given z) of arithmetic decoding, (codes, S): the share of each code's interval that falls to each point, in their order."""
    ends = law.cumsum(0) / law.sum()
    starts = ends - law / law.sum()
    edges = torch.arange(codes + 1, dtype=torch.float64).unsqueeze(-1) / codes
    return codes * (torch.minimum(edges[1:], ends) - torch.maximum(edges[:-1], starts)).clamp(min=0)


def coded(process, data, laws, steps):
    """The law at the end, over `data`, of students that are exact given their code, with equal chances of each code."""
    times, total = torch.linspace(0, 1, steps + 1).tolist(), 0
    for law in laws:
        total = total + Chain(process, gm.oracle(process, data, law)).law("exact", times)[-1] / len(laws)
    return total[process.space.index(data)]


def total_correlation(law, shape):
    """Kullback-Leibler divergence of a law from the product of its tokens' laws, in nats; `law` is over all states, `shape` is (V,) * L."""
    table = law.reshape(shape)
    tokens = [table.sum([i for i in range(table.dim()) if i != j]) for j in range(table.dim())]
    product = joint(torch.stack(tokens))
    return float((torch.where(law > 0, law, 1.0).log() * law).sum() - (torch.where(law > 0, product, 1.0).log() * law).sum())


def conditional_correlation(pairs, shape):
    """The mean total correlation of the data given the noise, for a law of pairs [noise, data], in nats."""
    return sum(float(row.sum()) * total_correlation(row / row.sum(), shape) for row in pairs if row.sum() > 0)


def variation(p, q):
    """Total variation."""
    return float((p - q).abs().sum() / 2)
