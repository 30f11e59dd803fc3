"""What a network is told besides the state: the time, and the labels that it is conditioned on."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from genmatch.errors import GenmatchError


class Conditioning(nn.Module):
    """Embeds times and labels into one vector a sample, (B, width).

    Args:
        width: of the vector.
        labels: number of classes of each label by name; the index `classes` itself stands for "not given".
        frequencies: number of Fourier frequencies of the time.
        timed: whether the time is told at all.
    """

    def __init__(self, width: int, labels: Mapping[str, int] | None = None, frequencies: int = 16, *, timed: bool = True) -> None:
        super().__init__()
        self.width = width
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.exp(torch.linspace(0, math.log(1000.0), frequencies)), persistent=False)
        self.time = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width)) if timed else None
        self.classes = dict(labels or {})
        self.labels = nn.ModuleDict({name: nn.Embedding(classes + 1, width) for name, classes in self.classes.items()})

    def forward(self, t: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """The vector for times `t`, (B,), and labels, (B,) each; a label that is left out counts as not given.

        Raises:
            GenmatchError: for a label that the network was not built for.
        """
        if extra := sorted(set(condition) - set(self.labels)):
            raise GenmatchError(f"this network is conditioned on {sorted(self.labels) or 'nothing'}, got {extra}; build it with `labels={{name: classes}}`.")
        vector = self.frequencies.new_zeros(len(t), self.width)
        if self.time is not None:
            angles = t.to(self.frequencies.dtype).unsqueeze(-1) * self.frequencies
            vector = self.time(torch.cat([angles.sin(), angles.cos()], -1))
        for name, classes in self.classes.items():
            absent = torch.full(t.shape, classes, device=t.device)
            vector = vector + self.labels[name](condition.get(name, absent))
        return nn.functional.silu(vector)


class Modulation(nn.Module):
    """Adaptive layer norm: a normalised state, scaled and shifted by the condition, and a gate for what is added back.

    Starts as a plain layer norm. With a closed gate, `gate=0`, a deep network starts as a shallow one; with attention that costs
    hundreds of steps, in which a text model learns no more than how frequent its tokens are, so transformers start with `gate=1`.

    Args:
        width: of the state.
        condition_width: of the condition.
        gate: at the start.

    Source: "Scalable Diffusion Models with Transformers" (Peebles & Xie, 2023), https://arxiv.org/abs/2212.09748.
    """

    def __init__(self, width: int, condition_width: int, gate: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.project = nn.Linear(condition_width, 3 * width)
        nn.init.zeros_(self.project.weight)
        self.project.bias = nn.Parameter(torch.tensor([0.0, 0.0, gate]).repeat_interleave(width))

    def forward(self, h: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        """The modulated state and the gate; `h` is (B, ..., width), `vector` (B, condition_width)."""
        parts = self.project(vector).reshape(len(vector), *[1] * (h.dim() - 2), -1)
        scale, shift, gate = parts.chunk(3, -1)
        return self.norm(h) * (1 + scale) + shift, gate
