r"""Distillation of a masked chain: a network that is told a code, which says in advance which way a sample goes.

    p(x1) = (1 / K) sum_z p(x1 | z),   p(x1 | z) = K |[z / K, (z + 1) / K) and the interval of x1|

A step draws the tokens that it reveals independently of each other, whatever the network: the best that any network of x_t alone can
say of a token is its posterior, which an exact teacher says already (the mean of what it says after more steps is what it said
before them). So the student is told one thing more. The teacher draws by arithmetic decoding: it cuts [0, 1) into intervals as long as the
probabilities of the first token, the one with the number u is taken, cut likewise for the second token, and so on. The code
z is where u lies, to the K-th part. A student that knows z has a mixture of K laws in one step, so that its step can hold up to
log K nats of the tokens' total correlation, and the law of its samples is the teacher's as K grows, in one step too.

Sources: "Arithmetic Sampling" (Vilnis et al., ICML 2023), https://arxiv.org/abs/2210.15458 (the codes); "Distillation of Discrete
Diffusion through Dimensional Correlations" (Hayakawa et al., ICML 2025), https://arxiv.org/abs/2410.08709 (a student that is a mixture).
"""

from __future__ import annotations

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, positive_integer
from genmatch.models import Condition, Model, Predictor, check_model, conditions_for, device_of, evaluating
from genmatch.processes.base import MarkovProcess
from genmatch.rows import integers, uniform
from genmatch.sampling import make_rng
from genmatch.solvers.chains import chain_of
from genmatch.tensors import tree_map

_NEEDS = ("posterior", "masked", "redrawing")
_BELOW_ONE = 1 - 2**-53


def distill(
    process: MarkovProcess,
    model: Model,
    n: int,
    codes: int,
    *,
    name: str = "code",
    condition: Condition | Tensor | None = None,
    seed: int | None = None,
    rng: torch.Generator | None = None,
    batch_size: int = 1024,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Draws data with a masked model, one token a network call, and the code of each: what a student of fewer steps is trained on.

    The student is any network for the same process that takes the code as a label, and training and sampling are as ever. Its
    codes are drawn with equal chances, `torch.randint(codes, (n,))`, or dealt out evenly. With `codes=1` it is the teacher again.

    Args:
        process: a chain with the mask as source.
        model: the teacher.
        n: how many data points. For codes to stand for laws and not for single points, many times `codes`.
        codes: K, how many codes there are.
        name: of the label.
        condition: what the teacher is conditioned on, with `n` entries; it becomes part of the data.
        seed: makes the draw repeatable; fresh randomness if None.
        rng: source of randomness, instead of `seed`.
        batch_size: data points a network call.

    Returns:
        Data for `gm.train`: x1, (n, *shape), and the condition, with the codes, (n,), under `name`.

    Raises:
        GenmatchError: if the process is no masked chain, or an argument does not fit.

    Example: two tokens that are equal, drawn in one step; a student without the code would have them differ half of the time.
        >>> import genmatch as gm
        >>> process = gm.CTMC(gm.paths.Mixture((2,), vocab_size=2))
        >>> teacher = gm.oracle(process, torch.tensor([[0, 0], [1, 1]]))
        >>> x1, told = gm.recipes.distill(process, teacher, 200, codes=2, seed=0)
        >>> network = gm.nn.MLP(process.space, process.output_shape, width=16, depth=1, labels={"code": 2})
        >>> student = gm.train(process, network, (x1, told), steps=200, lr=1e-2, ema=0.9, seed=0).model
        >>> x = gm.sample(process, student, 100, steps=1, condition={"code": torch.arange(100) % 2}, seed=0)
        >>> (x[:, 0] == x[:, 1]).float().mean() > 0.9
        tensor(True)
    """
    n, codes, size = positive_integer(n, "n"), positive_integer(codes, "codes"), positive_integer(batch_size, "batch_size")
    if missing := [need for need in _NEEDS if not process.supports(need)]:
        raise GenmatchError(f"`distill` reveals the masks of a chain, and {process} has no `{missing[0]}`; use `gm.recipes.reflow` for other processes.")
    conditions = conditions_for(condition, n)
    if name in conditions:
        raise GenmatchError(f"the condition {name!r} is given already; pass another `name` for the code.")
    rng = make_rng(device_of(model), seed, rng)
    check_model(process, model, conditions, 1, rng.device)
    code = integers(codes, (n,), device=rng.device, rng=rng)
    parts = []
    with torch.no_grad(), evaluating(model):
        for start in range(0, n, size):
            rows = slice(start, start + size)
            predict = Predictor(process, model, tree_map(lambda value, rows=rows: value[rows], conditions))
            parts.append(_decode(process, predict, code[rows].double() / codes, 1 / codes, rng))
    return torch.cat(parts), {**conditions, name: code}


def _decode(process: MarkovProcess, predict: Predictor, low: Tensor, width: float, rng: torch.Generator) -> Tensor:
    """Samples whose number lies in [low, low + width), (B,): position after position, each interval stretched to [0, 1) after its token."""
    chain, ask = chain_of(process), predict.where_read if process.sparse else predict
    x, high = process.path.source(len(low), rng=rng), low + width
    length = x[0].numel()
    for place in range(length):
        here = (torch.arange(length, device=x.device) == place).reshape(x.shape[1:]).expand_as(x)
        time = chain.redrawing.time_at(torch.full_like(low, 1 - place / length))
        probs = chain.posterior(ask(x, time), x, time)[here].double().softmax(-1)
        token, low, high = _cut(probs, low, high, uniform((len(low),), dtype=torch.float64, device=low.device, rng=rng))
        x = x.masked_scatter(here, token)
    return x


def _cut(probs: Tensor, low: Tensor, high: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The token that a number of [low, high) falls on, and what is left of that interval within it, stretched.

    Args:
        probs: of the tokens, float64, (B, V).
        low: start of the interval, (B,).
        high: its end, (B,).
        u: where in the interval the number is, in [0, 1), (B,).
    """
    ends = probs.cumsum(-1)
    ends = ends / ends[:, -1:]
    number = (low + (high - low) * u).clamp(max=_BELOW_ONE)
    token = torch.searchsorted(ends, number.unsqueeze(-1), right=True)
    end = ends.gather(-1, token)
    start = torch.where(token > 0, ends.gather(-1, (token - 1).clamp(min=0)), 0.0)
    low, high = ((torch.stack([low, high], -1).clamp(start, end) - start) / (end - start)).unbind(-1)
    return token.squeeze(-1), low, high
