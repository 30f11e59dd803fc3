r"""Writing from left to right as a Markov process: the baseline that discrete diffusion is compared with.

The next token appears at rate $n\,w_t$, with n tokens missing, and is drawn from $\pi(v | x) = p(x_1^k = v | x_1^{<k})$. The order is
fixed, so only one path of states leads to a sequence, and the bound of its likelihood is the likelihood,

    -log p(x1) = sum_k -log pi(x1_k | x1_<k),

which a network that looks only back computes in one call.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.generators import Categorical as TokenLaw
from genmatch.generators import Generator, Jump
from genmatch.logits import draw_where
from genmatch.paths.base import Path
from genmatch.paths.sequential import Sequential
from genmatch.paths.visits import Visit
from genmatch.processes.base import Predict
from genmatch.processes.ordered import Ordered
from genmatch.tensors import bernoulli, expand, scatter, uniforms


class Autoregressive(Ordered):
    """Tokens from left to right.

    Its network must be causal: the output at a position may depend only on the tokens before it, and not on the time, as that of
    `gm.nn.Transformer(..., causal=True)`. It is best trained with `objective="elbo"`, which is the usual cross-entropy of all
    positions at once. A step with the prediction frozen draws the tokens that it reveals independently: with few steps they do not
    know of each other.

    Args:
        path: a `Sequential` path.

    Raises:
        GenmatchError: for another path.

    Example:
        >>> Autoregressive(Sequential(8, vocab_size=5)).output_shape
        (8, 5)
    """

    path: Sequential
    solver = "left-to-right"
    objective = "elbo"
    network = {"causal": True}  # noqa: RUF012 (read only)

    def __init__(self, path: Path) -> None:
        if not isinstance(path, Sequential):
            raise GenmatchError(f"Autoregressive needs a path from left to right, got {path!r}; pass `gm.paths.Sequential(length, vocab_size)`.")
        self.path = path

    def generator(self, output: Tensor, x: Tensor, t: Tensor) -> Generator:
        missing = self.path.space.size - self.path.revealed(x)
        first = self._place(x) == 0
        return Jump(expand(missing * self.path.schedule.rate(t), x) * first, TokenLaw(output))

    def divergence(self, target: Tensor, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Cross-entropy of the tokens that are revealed and of the next one, nats, (B,)."""
        seen = self._place(x) <= 0
        return scatter(seen, self.nats(target[seen], output[seen])).sum(-1)

    def check_sight(self, predict: Predict, x1: Tensor) -> None:
        """Refuses a network whose output depends on the last token, which nothing comes after.

        Raises:
            GenmatchError: if it does: it would be shown the tokens that it is asked for.
        """
        other = x1.clone()
        other[:, -1] = (other[:, -1] + 1) % self.path.space.vocab_size
        one, two = (predict(x, torch.full((1,), 0.5, dtype=torch.float64, device=x1.device)) for x in (x1, other))
        if not torch.allclose(one, two, equal_nan=True):
            raise GenmatchError(
                "the network looks ahead: its output changes with the last token, so that its likelihood would be that of an answer it was told; "
                "use a causal network, such as `gm.nn.Transformer(..., causal=True)`."
            )

    def transition(self, output: Tensor, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """The exact draw of how many tokens come, and each of them from the frozen prediction."""
        masked = self._place(x) >= 0
        count = (bernoulli(expand(self.path.schedule.jump_probability(t, s), x), x, rng=rng) & masked).sum(-1, keepdim=True)
        come = masked & (self._place(x) < count)
        return x.masked_scatter(come, draw_where(output, come, uniforms(x, rng=rng)))

    def visit(self, x1: Tensor, u: Tensor, start: float, end: float, *, rng: torch.Generator | None = None) -> Visit:
        """The whole sequence, once: a causal network does not see the token that it predicts."""
        return Visit(x1, torch.full_like(u, start), torch.ones_like(u))

    def visit_nats(self, output: Tensor, visit: Visit, x1: Tensor) -> Tensor:
        """-log p(x1) itself."""
        every = torch.ones_like(x1, dtype=torch.bool)
        return scatter(every, self.nats(x1[every], output[every])).double().sum(-1)

    def _place(self, x: Tensor) -> Tensor:
        """The place of each position counted from the first mask, (B, L): negative where a token is revealed."""
        return self.turns(x) - self.path.revealed(x).unsqueeze(-1)
