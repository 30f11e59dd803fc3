r"""Masked language models of Hugging Face as posterior networks of a masked chain.

    pi^j(v | x) = softmax over the tokens of a text of the logits at position j, for x with masks in it

A masked language model is trained on that posterior, with any share of masks (LLaDA, MDLM, Dream) or mostly on one (BERT), and on
the path with the mask as source it does not depend on the time. What is translated is the vocabulary: our tokens 0 .. V - 1 are
its tokens without the mask and the other special ones, which are never drawn, and our state V is its mask.

Sources: "Large Language Diffusion Models" (Nie et al., 2025), https://arxiv.org/abs/2502.09992; "Simple and Effective Masked
Diffusion Language Models" (Sahoo et al., 2024), https://arxiv.org/abs/2406.07524.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genmatch.data.tokenisers import Tokeniser
from genmatch.errors import GenmatchError, positive_integer
from genmatch.models import evaluating
from genmatch.paths import Mixture
from genmatch.processes import CTMC
from genmatch.schedules import CondOT, Schedule
from genmatch.tensors import precise


class MaskedLM(torch.nn.Module):
    """A language model as the posterior network of a masked chain. Built by `masked_lm`.

    Where the language model ends in its output embedding, it is split into `features` and `head`, so that a sampler computes
    logits only where tokens are drawn.

    Args:
        lm: called as lm(input_ids=..., **condition), with `.logits` of shape (B, positions, N).
        ids: its number of each of our tokens, int64, (V,).
        mask_id: its number of the mask.
        prefix: its tokens before every window.
        suffix: its tokens after every window.
        shift: whether its logits at a position are of the next one.
    """

    time_free = True

    def __init__(self, lm: torch.nn.Module, ids: Tensor, mask_id: int, *, prefix: Sequence[int] = (), suffix: Sequence[int] = (), shift: bool = False) -> None:
        super().__init__()
        self.lm, self.shift = lm, shift
        self.prefix, self.suffix = tuple(prefix), tuple(suffix)
        self.ids: Tensor
        self.states: Tensor
        self.register_buffer("ids", ids, persistent=False)
        self.register_buffer("states", torch.cat([ids, torch.tensor([mask_id])]), persistent=False)

    def forward(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """Logits of our tokens, (B, L, V), at states `x`, (B, L); an `attention_mask` of the window, (B, L), is extended to its ends."""
        return self._own(self._run(x, condition))

    def split(self) -> MaskedLM:
        """Splits the model into `features` and `head`, if it ends in a map of each position by itself and nothing follows."""
        if not isinstance(self._last, torch.nn.Module):
            return self
        device = self.states.device
        # The mask and the last token: enough to see whether the two ways agree.
        x, t = torch.arange(len(self.states), device=device)[-2:].unsqueeze(0), torch.zeros(1, device=device)
        with torch.no_grad(), evaluating(self.lm):
            known, whole = self._features(x, t), self(x, t)
            if known.shape[-1] == getattr(self._last, "in_features", known.shape[-1]) and torch.allclose(self._head(known), whole, atol=1e-5):
                self.features, self.head = self._features, self._head
        return self

    @property
    def _last(self) -> Any:
        """The output embedding, by the name that transformers has for it; None if there is none."""
        return getattr(self.lm, "get_output_embeddings", lambda: None)()

    def _features(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """What goes into the output embedding, (B, L, width)."""
        with _silent(self._last):
            return self._run(x, condition)

    def _head(self, known: Tensor) -> Tensor:
        """Logits of our tokens, (N, V), from features of positions."""
        return self._own(self._last(known))

    def _run(self, x: Tensor, condition: dict[str, Any]) -> Tensor:
        """What the language model returns as logits for the positions of the window."""
        start, end = len(self.prefix), len(self.suffix)
        inputs = torch.cat([self._fixed(self.prefix, x), self.states[x], self._fixed(self.suffix, x)], -1)
        if "attention_mask" in condition:
            mask = condition["attention_mask"]
            condition = {**condition, "attention_mask": torch.nn.functional.pad(mask, (start, end), value=1)}
        output = getattr(self.lm(input_ids=inputs, **condition), "logits", None)
        if not isinstance(output, Tensor) or output.dim() != 3 or output.shape[:2] != inputs.shape:
            found = tuple(output.shape) if isinstance(output, Tensor) else "none"
            raise GenmatchError(f"the language model must return `.logits` of shape (B, positions, N) = {(*inputs.shape, 'N')}, got {found}.")
        if self.shift:
            # What is said at a position is of the next; of the first nothing is said but by itself.
            output = torch.cat([output[:, :1], output[:, :-1]], 1)
        return output[:, start : start + x.shape[1]]

    def _own(self, logits: Tensor) -> Tensor:
        return precise(logits[..., self.ids])

    def _fixed(self, ids: tuple[int, ...], x: Tensor) -> Tensor:
        return torch.tensor(ids, dtype=torch.int64, device=x.device).expand(len(x), -1)


@contextmanager
def _silent(layer: torch.nn.Module) -> Iterator[None]:
    """Within the block the layer returns what it is given: a model that ends in it returns its features."""
    layer.forward = lambda known: known
    try:
        yield
    finally:
        del layer.forward


class Vocabulary(Tokeniser):
    """The tokens of a language model that texts are made of, as 0 .. V - 1.

    Args:
        tokenizer: of Hugging Face, with `encode` and `decode`.
        ids: its number of each of our tokens, (V,).
    """

    def __init__(self, tokenizer: Any, ids: Tensor) -> None:
        self.tokenizer, self.ids = tokenizer, ids.tolist()
        self._index = {number: i for i, number in enumerate(self.ids)}

    @property
    def vocab_size(self) -> int:
        return len(self.ids)

    def encode(self, text: str) -> Tensor:
        numbers = self.tokenizer.encode(text, add_special_tokens=False)
        for place, number in enumerate(numbers):
            if number not in self._index:
                piece = self.tokenizer.convert_ids_to_tokens(number)
                raise GenmatchError(
                    f"token {place} of the text, {piece!r}, is special to the tokenizer and stands in no text; remove it, or pass it in `keep`."
                )
        return torch.tensor([self._index[number] for number in numbers], dtype=torch.int64)

    def decode(self, tokens: Iterable[int] | Tensor) -> str:
        """The text of tokens. Raises `GenmatchError` for tokens outside the vocabulary, or the mask."""
        places = tokens.tolist() if isinstance(tokens, Tensor) else list(tokens)
        if wrong := [place for place in places if not 0 <= place < self.vocab_size]:
            raise GenmatchError(
                f"tokens must be integers from 0 to {self.vocab_size - 1}, got {wrong[0]}{' (the mask)' if wrong[0] == self.vocab_size else ''}."
            )
        return self.tokenizer.decode([self.ids[place] for place in places])


def masked_lm(
    source: str | Path | torch.nn.Module,
    *,
    length: int,
    tokenizer: Any = None,
    mask_id: int | None = None,
    exclude: Iterable[int] | None = None,
    keep: Iterable[int] = (),
    prefix: Sequence[int] | None = None,
    suffix: Sequence[int] | None = None,
    shift: bool = False,
    schedule: Schedule = CondOT(),  # noqa: B008 (immutable)
) -> tuple[CTMC, MaskedLM, Vocabulary | None]:
    """A masked language model as a process, its model, and its tokeniser: ready for `sample`, `clamp`, `elbo` and every solver.

    Args:
        source: a folder that `save_pretrained` wrote, or a module called as module(input_ids=...) with `.logits`; load models with
            code of their own yourself and pass them here.
        length: tokens L of a window.
        tokenizer: of Hugging Face; that in the folder by default. A module may do without.
        mask_id: the model's number of the mask; the tokenizer's, or that in the module's `config`, by default.
        exclude: numbers that no text has, besides the mask; by default the special tokens of the tokenizer, and the numbers that it
            does not know.
        keep: special tokens that may be drawn nevertheless, such as one that ends a text.
        prefix: tokens before the window; the tokenizer's `cls` token by default, if it has one.
        suffix: tokens after it; the tokenizer's `sep` token likewise.
        shift: for models whose logits at a position are of the next one, as those that began as autoregressive ones (Dream).
        schedule: gives kappa, the share of tokens that are data.

    Returns:
        The process, the model, which is the module itself in other clothes, and the tokeniser, None without a tokenizer.

    Raises:
        GenmatchError: if transformers is not installed, the folder holds no such model, or the mask is unknown.

    Example: a module of our own with four tokens and a mask.
        >>> from types import SimpleNamespace
        >>> class Net(torch.nn.Module):
        ...     def forward(self, input_ids):
        ...         return SimpleNamespace(logits=torch.eye(5)[torch.full_like(input_ids, 2)] * 99)
        >>> process, model, _ = masked_lm(Net(), length=3, mask_id=4)
        >>> import genmatch as gm
        >>> gm.sample(process, model, 1, steps=2, seed=0, clamp={0: 1})
        tensor([[1, 2, 2]])
    """
    length = positive_integer(length, "length")
    lm, tokenizer = _loaded(source, tokenizer) if isinstance(source, str | Path) else (source, tokenizer)
    if not isinstance(lm, torch.nn.Module):
        raise GenmatchError(f"`source` must be a folder or a torch.nn.Module, got {type(lm).__name__}.")
    mask = _mask_id(lm, tokenizer, mask_id)
    size = _vocab_size(lm, mask, shift)
    ids = _drawn(size, mask, tokenizer, exclude, keep)
    ends = [_end(tokenizer, name) if given is None else given for name, given in (("cls", prefix), ("sep", suffix))]
    model = MaskedLM(lm, ids, mask, prefix=ends[0], suffix=ends[1], shift=shift).to(_device(lm)).split()
    process = CTMC(Mixture((length,), vocab_size=len(ids), source="mask", schedule=schedule))
    return process, model, None if tokenizer is None else Vocabulary(tokenizer, ids)


def _loaded(source: str | Path, tokenizer: Any) -> tuple[Any, Any]:
    """The model in a folder, and the tokenizer in it unless one is given; nothing is fetched."""
    folder = Path(source)
    if not (folder / "config.json").exists():
        raise GenmatchError(f"`{folder}` holds no model (no config.json); pass a folder that `save_pretrained` wrote, or a loaded model.")
    library = _transformers()

    def load(kind: str) -> Any:
        try:
            return getattr(library, kind).from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise GenmatchError(f"{kind} cannot load `{folder}`: {str(error).splitlines()[0]}; load it yourself and pass the object.") from error

    return load("AutoModelForMaskedLM"), load("AutoTokenizer") if tokenizer is None else tokenizer


def _mask_id(lm: torch.nn.Module, tokenizer: Any, given: int | None) -> int:
    config = getattr(lm, "config", None)
    found = next((value for value in (given, getattr(tokenizer, "mask_token_id", None), getattr(config, "mask_token_id", None)) if value is not None), None)
    if not isinstance(found, int) or found < 0:
        raise GenmatchError(f"which token is the mask is not known (got {found!r}); pass `mask_id`, or a tokenizer with a mask token.")
    return found


def _vocab_size(lm: torch.nn.Module, mask: int, shift: bool) -> int:
    """How many logits the model has for a position, from one call on two masks."""
    probe = MaskedLM(lm, torch.empty(0, dtype=torch.int64), mask, shift=shift).to(_device(lm))
    with torch.no_grad():
        return probe._run(torch.zeros(1, 2, dtype=torch.int64, device=_device(lm)), {}).shape[-1]


def _drawn(size: int, mask: int, tokenizer: Any, exclude: Iterable[int] | None, keep: Iterable[int]) -> Tensor:
    """The model's number of each token that a text may have, (V,)."""
    known = set(range(size)) if tokenizer is None else set(tokenizer.get_vocab().values())
    kept, given = set(keep), set(exclude or ())
    special = set(getattr(tokenizer, "all_special_ids", ())) if exclude is None else given
    if strange := sorted((kept | given) - set(range(size))):
        raise GenmatchError(f"`exclude` and `keep` must hold numbers from 0 to {size - 1}, got {strange[0]}.")
    ids = [i for i in range(size) if i != mask and i in known and (i not in special or i in kept)]
    if not ids:
        raise GenmatchError(f"of {size} tokens none is left to draw; pass fewer in `exclude`.")
    return torch.tensor(ids)


def _end(tokenizer: Any, name: str) -> tuple[int, ...]:
    number = getattr(tokenizer, f"{name}_token_id", None)
    return () if number is None else (number,)


def _device(lm: torch.nn.Module) -> torch.device:
    return next((parameter.device for parameter in lm.parameters()), torch.device("cpu"))


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError:
        raise GenmatchError("models of Hugging Face need transformers, which is not installed; run `pip install genmatch[hf]`.") from None


__all__ = ["MaskedLM", "Vocabulary", "masked_lm"]
