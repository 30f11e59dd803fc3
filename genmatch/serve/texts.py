r"""Text, token by token, as it is unmasked.

A model has windows of one length W. A longer text is drawn window by window, each beginning with the last tokens of the one before:

    window k takes positions k (W - O) .. k (W - O) + W - 1,    its first O tokens are known,    its seed is seed + k

with O = W / 4. Every window is a draw of `gm.sample(..., clamp=known, seed=seed + k)` to the last token. The confidence of a token is the
probability that the network gave it in the state before, one more network call a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genmatch import data as data_sets
from genmatch import solvers
from genmatch.constraints import known as check_known
from genmatch.errors import GenmatchError
from genmatch.infilling import known_tokens
from genmatch.models import Predictor
from genmatch.processes import MarkovProcess
from genmatch.runs import find_run, load_run
from genmatch.sampling import stream
from genmatch.serve.guards import field
from genmatch.sharpening import sharpen

_OVERLAP = 4
"""A window begins with the last quarter of the one before."""


@dataclass(frozen=True)
class Writer:
    """A run on text, ready to write.

    Attributes:
        name: what it is called on the page.
        about: one line on it.
        process: the process.
        model: the network.
        window: tokens W of a window.
        read: a text to tokens.
        write: tokens, (N, L), to a text each.
        solvers: those that fit, the recommended one first.
    """

    name: str
    about: str
    process: MarkovProcess
    model: torch.nn.Module
    window: int
    read: Callable[[str], Tensor]
    write: Callable[[Tensor], list[str]]
    solvers: list[str]

    @classmethod
    def load(cls, folder: Path, name: str | None = None) -> Writer:
        """The writer of the run in a folder, or of one that comes with the package.

        Raises:
            GenmatchError: if there is no run, or it is not on text.
        """
        run = load_run(find_run(folder))
        data = data_sets.get(run.settings.data)
        shape: tuple[int, ...] = getattr(run.view.space, "shape", ())
        if data.read is None or data.write is None or len(shape) != 1:
            raise GenmatchError(
                f"the page writes with runs on text, and `{folder}` is on {data.name}; train one with `genmatch train --data text --process mask`."
            )
        about = f"{run.settings.process} on {data.name}, {run.settings.network} of width {run.settings.width}, {run.settings.steps} steps"
        found = solvers.available(run.process)
        return cls(name or folder.name, about, run.process, run.model, shape[0], data.read, cache_pieces(data.write), found)

    def pieces(self, tokens: list[int]) -> list[str]:
        """The text of each token by itself."""
        return [self.write(torch.tensor([[token]]))[0] for token in tokens]


def cache_pieces(write: Callable[[Tensor], list[str]]) -> Callable[[Tensor], list[str]]:
    """The same function, which remembers the texts of single tokens."""

    @cache
    def single(token: int) -> list[str]:
        return write(torch.tensor([[token]]))

    return lambda tokens: single(int(tokens)) if tokens.numel() == 1 else write(tokens)


@dataclass(frozen=True)
class Draft:
    """A text to be written, checked.

    Attributes:
        writer: who writes.
        known: tokens by position.
        length: tokens of the text.
        model: the network, sharpened as asked.
        steps: for each window.
        solver: its name.
        seed: of the first window.
    """

    writer: Writer
    known: dict[int, int]
    length: int
    model: torch.nn.Module
    steps: int
    solver: str
    seed: int

    @classmethod
    def checked(
        cls,
        writer: Writer,
        *,
        prompt: str = "",
        at: list[str] | None = None,
        keep: dict[int, int] | None = None,
        length: int | None = None,
        steps: int = 64,
        solver: str | None = None,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> Draft:
        """Checks what is asked for.

        Args:
            writer: who writes.
            prompt: stands at the beginning; each `_` is a free token.
            at: pieces `position:text`.
            keep: tokens by position, below the prompt and the pieces.
            length: tokens of the text; a window by default.
            steps: for each window.
            solver: its name; the recommended one by default.
            temperature: divides the logits.
            seed: makes it repeatable.

        Raises:
            WrongField: if something does not fit, with the field that it stands in.
        """
        length = writer.window if length is None else length
        solver = solver or writer.solvers[0]
        with field("prompt"):
            known_tokens(writer.read, length, prompt)
        with field("at"):
            known, _ = known_tokens(writer.read, length, prompt, at or [])
        with field("keep"):
            _check_tokens(keep or {}, length, writer.process.data_space.vocab_size)  # type: ignore[attr-defined]
        draft = cls(writer, {**(keep or {}), **known}, length, writer.model, steps, solver, seed)
        with field("at" if at else "prompt" if prompt else "keep"):
            draft._check_known()
        with field("solver"):
            solvers.resolve(writer.process, solver)
        with field("temperature"):
            model = writer.model if temperature == 1 else sharpen(writer.model, temperature=temperature)
        return replace(draft, model=model)

    def _check_known(self) -> None:
        """Refuses what the process cannot be told, such as what comes later, before anything is drawn."""
        window, begun = self.writer.window, dict.fromkeys(range(self.writer.window // _OVERLAP), 0)
        for start in self.starts():
            known = _shifted(self.known, start, window) | (begun if start else {})
            check_known(self.writer.process.path, known or None, 1)

    def starts(self) -> list[int]:
        """Where the windows start."""
        window = self.writer.window
        stride = window - window // _OVERLAP
        return list(range(0, max(1, self.length - window // _OVERLAP), stride))

    def events(self) -> Iterator[dict[str, Any]]:
        """What happens, step by step: which tokens are new, and how sure the network was of each."""
        writer, starts = self.writer, self.starts()
        yield {"event": "text", "length": self.length, "window": writer.window, "steps": self.steps * len(starts), "known": sorted(self.known)}
        text: list[int] = []
        for number, start in enumerate(starts):
            fixed = _shifted(self.known, start, writer.window) | dict(enumerate(text[start:]))
            way = stream(writer.process, self.model, 1, steps=self.steps, solver=self.solver, clamp=fixed or None, seed=self.seed + number)
            ask, before = Predictor(writer.process, self.model), None
            for step, (t, x) in enumerate(way):
                tokens = self._news(x, before, ask, start, len(text), fixed)
                yield {"event": "step", "step": number * self.steps + step, "t": round(t, 4), "tokens": tokens}
                before = (t, x)
            text = text[:start] + x[0].tolist()
        text = text[: self.length]
        yield {"event": "done", "tokens": text, "text": writer.write(torch.tensor([text]))[0]}

    def _news(self, x: Tensor, before: tuple[float, Tensor] | None, ask: Predictor, start: int, written: int, fixed: dict[int, int]) -> list[list[Any]]:
        """[position, token, its text, confidence] of each position that changed; no token and no text where it is masked."""
        changed = torch.ones_like(x, dtype=torch.bool) if before is None else x != before[1]
        places = [place for place in changed[0].nonzero().flatten().tolist() if written <= start + place < self.length]
        sure = _probabilities(ask, *before, x) if places and before is not None else None
        vocab, news = self.writer.process.data_space.vocab_size, []  # type: ignore[attr-defined]
        for place in places:
            token = int(x[0, place])
            if token >= vocab:
                news.append([start + place, None, None, None])
            else:
                confidence = 1.0 if place in fixed else None if sure is None else round(float(sure[place]), 3)
                news.append([start + place, token, self.writer.pieces([token])[0], confidence])
        return news


def _probabilities(ask: Predictor, t: float, x: Tensor, after: Tensor) -> Tensor:
    """What the network gave to the tokens of `after` in the state `x` before them, (L,)."""
    time = torch.full((1,), max(t, ask.process.t_min), dtype=torch.float64)
    with torch.no_grad():
        mean = ask.process.mean_at(ask(x, time), x, time)
    return mean[0].gather(-1, after[0].clamp(max=mean.shape[-1] - 1).unsqueeze(-1)).squeeze(-1)


def _check_tokens(keep: dict[int, int], length: int, vocab_size: int) -> None:
    for place, token in keep.items():
        if not 0 <= place < length:
            raise GenmatchError(f"position {place} is outside of the text, which has positions 0 to {length - 1}.")
        if not 0 <= token < vocab_size:
            raise GenmatchError(f"there is no token {token}; those of this model are 0 to {vocab_size - 1}.")


def _shifted(known: dict[int, int], start: int, window: int) -> dict[int, int]:
    """What is known in a window, by its own positions."""
    return {place - start: token for place, token in known.items() if start <= place < start + window}


__all__ = ["Draft", "Writer"]
