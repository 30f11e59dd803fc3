"""Whether many small steps starve rare tokens: `python benchmarks/token_entropy.py`.

Independent tokens with the law of Zipf, V = 50,257, in float32: the exact network of a masked chain is that law, in every state, so the
tokens of the samples must have its entropy, however many steps there are. Beside it stands the usual loop, which draws a token or the
mask at once by adding float32 Gumbel noise: a Gumbel of float32 uniforms is at most 16.6, so against a mask of probability near 1 a rare
token never wins. The entropy is -log p of the samples' tokens, whose mean is the entropy of the law if the samples have it; its standard
error is that of the tokens, and the curve of time over steps is that of the sampler alone, with a network that costs nothing.
"""

from __future__ import annotations

import time

import torch
from common import finish, options
from torch import Tensor

import genmatch as gm
from genmatch.tensors import uniforms

VOCAB, LENGTH, BATCH = 50_257, 64, 32


class Zipf(torch.nn.Module):
    """The exact posterior of independent tokens with p(v) proportional to 1 / (v + 1): split, and without the time."""

    time_free = True

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(-torch.arange(1, vocab + 1).float().log())

    def features(self, x: Tensor, t: Tensor) -> Tensor:
        """Nothing is to be known of a state, (B, L, 1)."""
        return torch.zeros(*x.shape, 1)

    def head(self, features: Tensor) -> Tensor:
        """The law, (N, V)."""
        return self.logits.expand(len(features), -1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The law at each position, (B, L, V)."""
        return self.logits.expand(*x.shape, -1)


def gumbel_loop(logits: Tensor, steps: int, rows: int, rng: torch.Generator) -> Tensor:
    """The usual loop for masks of `rows` positions: a token or the mask by the maximum of float32 Gumbels, and all at the end."""
    x = torch.full((rows,), len(logits))
    law = logits.log_softmax(-1)
    for i in range(steps):
        masked = (x == len(logits)).nonzero().squeeze(-1)
        if not len(masked):
            break
        reveal = 1 / (steps - i)
        keep = torch.tensor([1 - reveal]).log()
        for part in masked.split(64):
            chances = torch.cat([law + torch.tensor(reveal).log(), keep])
            noise = -(-(torch.rand(len(part), len(chances), generator=rng) + 1e-10).log() + 1e-10).log()
            x[part] = (chances + noise).argmax(-1)
    return x


def surprise(tokens: Tensor, law: Tensor) -> tuple[float, float]:
    """Mean and standard error of -log p of tokens, nats: the entropy, if they have the law."""
    nats = -law[tokens.flatten()]
    return float(nats.mean()), float(nats.std() / nats.numel() ** 0.5)


def main() -> None:
    """Prints, and with `--json` writes, the entropies and the times."""
    chosen = options(__doc__)
    model = Zipf(VOCAB)
    law = model.logits.detach().double().log_softmax(-1)
    exact = float(-(law.exp() * law).sum())
    process = gm.CTMC(gm.paths.Mixture((LENGTH,), VOCAB))
    rows = []
    for steps in (16, 256) if chosen.quick else (16, 256, 1024, 4096):
        start = time.process_time()
        found, error = surprise(gm.sample(process, model, 8 * BATCH, steps=steps, seed=0), law)
        rows.append(
            {"sampler": "genmatch exact", "steps": steps, "tokens": 8 * BATCH * LENGTH, "nats": found, "error": error, "seconds": time.process_time() - start}
        )
        positions = 48 if steps <= 1024 else 12
        start = time.process_time()
        found, error = surprise(gumbel_loop(model.logits.detach(), steps, positions, torch.Generator().manual_seed(0)), law)
        rows.append(
            {"sampler": "float32 Gumbel loop", "steps": steps, "tokens": positions, "nats": found, "error": error, "seconds": time.process_time() - start}
        )
    for row in rows:
        row["from_data"] = row["nats"] - exact
        row["seconds_a_thousand_tokens"] = 1000 * row.pop("seconds") / row["tokens"]
    curve = []
    for vocab in (64, 1024, 8192, VOCAB):
        chain, net = gm.CTMC(gm.paths.Mixture((LENGTH,), vocab)), Zipf(vocab)
        for steps in (16, 64, 256) if chosen.quick else (16, 64, 256, 1024):
            start = time.process_time()
            gm.sample(chain, net, BATCH, steps=steps, seed=0)
            spent = time.process_time() - start
            start = time.process_time()
            for _ in range(steps):
                uniforms(torch.zeros(BATCH, LENGTH), rng=None)
            curve.append({"vocab": vocab, "steps": steps, "milliseconds": 1000 * spent, "of_which_coins": 1000 * (time.process_time() - start)})
    finish(
        chosen,
        entropy=[{"sampler": "data", "steps": 0, "tokens": 0, "nats": exact, "error": 0.0, "from_data": 0.0, "seconds_a_thousand_tokens": 0.0}, *rows],
        curve=curve,
    )


if __name__ == "__main__":
    main()
