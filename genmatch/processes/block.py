r"""Block diffusion: blocks from left to right, and masked diffusion inside each of them.

Each mask of the open block becomes data at rate $N w_t / m$, with N masks in all and m in the block, and is then a draw from
$\pi^j(v | x) = p(x_1^j = v | \text{the blocks before, and what the block shows})$. The likelihood bound is that of a masked chain,
block by block,

    -log p(x1)  <=  sum over blocks of  E_{m uniform in 1 .. n}  (n / m)  sum_{j masked} -log pi^j(x1_j | x),

which is tight. A block of all tokens is the masked `CTMC`, blocks of one token are `Autoregressive`; between them blocks trade the
number of tokens that one network call reveals for what is known when they are revealed. Finished blocks never change, and a
block-causal network need not see them again.

Source: "Block Diffusion: Interpolating Between Autoregressive and Diffusion Language Models" (Arriola et al., ICLR 2025),
https://arxiv.org/abs/2503.09573.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.generators import Categorical as TokenLaw
from genmatch.generators import Generator, Jump
from genmatch.logits import draw_where
from genmatch.paths.base import Path
from genmatch.paths.blocks import Blocks
from genmatch.paths.visits import Visit
from genmatch.processes.ordered import Ordered
from genmatch.tensors import bernoulli, expand, scatter, uniforms


class BlockDiffusion(Ordered):
    """Blocks of tokens from left to right, each by masked diffusion.

    Any network fits that reads the whole state. One that is block-causal, as `gm.nn.Transformer(..., block=n)`, is trained on all blocks of
    a sequence in one call, with `objective="streams"`, and sampled without reading finished blocks again. A step with the prediction frozen
    that goes beyond the open block draws tokens of the next ones that do not know of it: take at least as many steps as blocks.

    Args:
        path: a `Blocks` path.

    Raises:
        GenmatchError: for another path.

    Example:
        >>> BlockDiffusion(Blocks(8, vocab_size=5, block=4)).output_shape
        (8, 5)
    """

    path: Blocks
    solver = "random-order"
    objective = "streams"

    def __init__(self, path: Path) -> None:
        if not isinstance(path, Blocks):
            raise GenmatchError(f"BlockDiffusion needs a path of blocks, got {path!r}; pass `gm.paths.Blocks(length, vocab_size, block)`.")
        self.path = path
        self.network = {"block": path.block}

    def generator(self, output: Tensor, x: Tensor, t: Tensor) -> Generator:
        return Jump(self._rate(x, t).unsqueeze(-1) * self.path.open(x), TokenLaw(output))

    def divergence(self, target: Tensor, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Cross-entropy of all masked tokens, nats, (B,): a step may reveal some of any block."""
        masked = self.masked(x)
        return scatter(masked, self.nats(target[masked], output[masked])).sum(-1)

    def cavity(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The same: of a masked token x says nothing itself."""
        return output

    def transition(self, output: Tensor, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """The exact draw of how many tokens come and which, and each of them from the frozen prediction."""
        masked = self.masked(x)
        count = (bernoulli(expand(self.path.schedule.jump_probability(t, s), x), x, rng=rng) & masked).sum(-1, keepdim=True)
        # Revealed tokens, whose key is 0, are the first of their block.
        place = self.path.places(torch.where(masked, uniforms(x, rng=rng), 0.0)) - (~masked).sum(-1, keepdim=True)
        come = masked & (place < count)
        return x.masked_scatter(come, draw_where(output, come, uniforms(x, rng=rng)))

    def kl_rate(self, output: Tensor, x: Tensor, t: Tensor, x1: Tensor) -> Tensor:
        """The rate of each token of the open block times -log pi of it."""
        opened = self.path.open(x)
        return self._rate(x, t) * scatter(opened, self.nats(x1[opened], output[opened])).double().sum(-1)

    def streams(self, x1: Tensor, u: Tensor, *, rng: torch.Generator | None = None) -> Visit:
        return self.path.streams(x1, u, rng=rng)

    def streams_nats(self, output: Tensor, visit: Visit, x1: Tensor) -> Tensor:
        """The bound of all blocks, of which the output has seen each with the data of those before."""
        masked = visit.weight > 0
        return (visit.weight * scatter(masked, self.nats(x1[masked], output[masked])).double()).sum(-1)

    def _rate(self, x: Tensor, t: Tensor) -> Tensor:
        """The rate of each mask of the open block, (B,)."""
        return self.masked(x).sum(-1) / self.path.open(x).sum(-1).clamp(min=1) * self.path.schedule.rate(t)
