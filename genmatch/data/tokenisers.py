"""Tokenisers: text to tokens 0 .. V - 1 and back, without loss.

    decode(encode(text)) == text

for every text that a tokeniser encodes. What it does not know is an error that says where it stands, never a stand-in token.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genmatch.errors import GenmatchError, positive_integer, unknown

_WORD = re.compile(r" ?\w+|\s|[^\w\s]")
"""A word with the space before it, one space of any kind, or one sign: together they cover any text."""


class Tokeniser(ABC):
    """Text to tokens and back."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab_size={self.vocab_size})"

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of tokens V."""

    @abstractmethod
    def encode(self, text: str) -> Tensor:
        """The tokens of a text, int64, (N,).

        Raises:
            GenmatchError: at the first part that has no token, with its position in the text.
        """

    @abstractmethod
    def decode(self, tokens: Iterable[int] | Tensor) -> str:
        """The text of tokens, (N,)."""


class Vocabulary(Tokeniser):
    """A list of pieces of text; a text is cut into pieces and each is looked up.

    Args:
        pieces: the piece of each token, all different.
        kind: what a piece is called in messages.
        cut: cuts a text into pieces that join to it; single characters by default.

    Raises:
        GenmatchError: if a piece occurs twice, or there is none.
    """

    def __init__(self, pieces: Sequence[str], kind: str = "character", cut: Callable[[str], Iterable[str]] = iter) -> None:
        if not pieces or len(set(pieces)) < len(pieces):
            twice = [piece for piece, count in Counter(pieces).items() if count > 1]
            raise GenmatchError(f"a vocabulary needs at least one {kind} and each once, got {repr(twice[0]) + ' twice' if twice else 'none'}.")
        self.pieces = tuple(pieces)
        self.kind = kind
        self._cut = cut
        self._index = {piece: i for i, piece in enumerate(pieces)}

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    def encode(self, text: str) -> Tensor:
        tokens: list[int] = []
        place = 0
        for piece in self._cut(_checked(text)):
            if piece not in self._index:
                raise GenmatchError(
                    f"unknown {self.kind} {piece!r} at position {place} of the text; the vocabulary has {self.vocab_size} of them: "
                    "remove it, or build the tokeniser from a text that has it."
                )
            tokens.append(self._index[piece])
            place += len(piece)
        return torch.tensor(tokens, dtype=torch.int64)

    def decode(self, tokens: Iterable[int] | Tensor) -> str:
        return "".join(self.pieces[i] for i in _indices(tokens, self.vocab_size))


def characters(text: str) -> Vocabulary:
    """A token for each different character of `text`, in the order of their code points.

    Example:
        >>> tokeniser = characters("to be")
        >>> tokeniser.encode("bet"), tokeniser.decode([1, 2])
        (tensor([1, 2, 4]), 'be')
    """
    return Vocabulary(sorted(set(_checked(text))))


def words(text: str, vocab_size: int | None = None) -> Vocabulary:
    """A token for each different word of `text` with the space before it, and for each other sign; the commonest come first.

    Args:
        text: what the words are taken from.
        vocab_size: keeps only so many of them, the commonest; all by default.

    Example:
        >>> words("to be or not to be").pieces
        (' be', 'to', ' or', ' not', ' to')
    """
    counts = Counter(_WORD.findall(_checked(text)))
    limit = len(counts) if vocab_size is None else positive_integer(vocab_size, "vocab_size")
    return Vocabulary([piece for piece, _ in counts.most_common(limit)], "word", _WORD.findall)


class Bytes(Tokeniser):
    """A token for each byte of UTF-8: any text has tokens, and any tokens a text.

    Bytes that are no UTF-8, which a model may well write, decode to the replacement character.

    Example:
        >>> Bytes().decode(Bytes().encode("né"))
        'né'
    """

    @property
    def vocab_size(self) -> int:
        return 256

    def encode(self, text: str) -> Tensor:
        return torch.from_numpy(np.frombuffer(_checked(text).encode(), dtype=np.uint8).astype(np.int64))

    def decode(self, tokens: Iterable[int] | Tensor) -> str:
        return bytes(_indices(tokens, 256)).decode(errors="replace")


class BPE(Tokeniser):
    """Byte-pair encoding on bytes, by the package tokenizers: the commonest pairs of tokens become tokens.

    Args:
        model: a trained `tokenizers.Tokenizer`, or the path of its JSON file.

    Raises:
        GenmatchError: if tokenizers is not installed, or the file is not one of its own.
    """

    def __init__(self, model: Any) -> None:
        library = _tokenizers()
        if isinstance(model, str | Path):
            try:
                model = library.Tokenizer.from_file(str(model))
            except Exception as error:  # the package raises no narrower class
                raise GenmatchError(f"`{model}` cannot be read as a tokeniser: {error}; expected the JSON file that tokenizers writes.") from error
        self.model = model

    @classmethod
    def from_json(cls, text: str) -> BPE:
        """The tokeniser of a JSON text that tokenizers wrote.

        Raises:
            GenmatchError: if it is none.
        """
        library = _tokenizers()
        try:
            return cls(library.Tokenizer.from_str(text))
        except Exception as error:  # the package raises no narrower class
            raise GenmatchError(f"the text is no tokeniser: {error}; expected the JSON that tokenizers writes.") from error

    @classmethod
    def train(cls, text: str, vocab_size: int) -> BPE:
        """Learns `vocab_size` tokens, of which 256 are the bytes.

        Args:
            text: what to learn from.
            vocab_size: number of tokens, at least 256.

        Raises:
            GenmatchError: if `vocab_size` is less than 256.
        """
        if positive_integer(vocab_size, "vocab_size") < 256:
            raise GenmatchError(f"`vocab_size` of byte-pair encoding must be at least 256, one for each byte, got {vocab_size}.")
        library = _tokenizers()
        model = library.Tokenizer(library.models.BPE())
        model.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = library.decoders.ByteLevel()
        alphabet = library.pre_tokenizers.ByteLevel.alphabet()
        trainer = library.trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
        model.train_from_iterator([_checked(text)], trainer)
        return cls(model)

    @property
    def vocab_size(self) -> int:
        return self.model.get_vocab_size()

    def encode(self, text: str) -> Tensor:
        return torch.tensor(self.model.encode(_checked(text)).ids, dtype=torch.int64)

    def decode(self, tokens: Iterable[int] | Tensor) -> str:
        return self.model.decode(_indices(tokens, self.vocab_size), skip_special_tokens=False)


TOKENISERS: Mapping[str, Callable[[str], Tokeniser]] = {
    "characters": characters,
    "bytes": lambda text: Bytes(),
    "words": words,
    "bpe": lambda text: BPE.train(text, 1024),
}
"""What makes a tokeniser from a text, by name."""


def make_tokeniser(name: str | Tokeniser, text: str) -> Tokeniser:
    """The tokeniser of that name for a text, or the one given; "bpe" has 1,024 tokens, "bpe-4096" as many as it says.

    Raises:
        GenmatchError: if the name is unknown.
    """
    if isinstance(name, Tokeniser):
        return name
    if name in TOKENISERS:
        return TOKENISERS[name](text)
    kind, _, size = name.partition("-") if isinstance(name, str) else ("", "", "")
    if kind == "bpe" and size.isdigit():
        return BPE.train(text, int(size))
    raise unknown("tokeniser", str(name), [*TOKENISERS, "bpe-4096"])


def _checked(text: str) -> str:
    if not isinstance(text, str):
        raise GenmatchError(f"a tokeniser takes text, got {type(text).__name__}; decode bytes first.")
    return text


def _indices(tokens: Iterable[int] | Tensor, vocab_size: int) -> list[int]:
    indices = tokens.tolist() if isinstance(tokens, Tensor) else list(tokens)
    for place, index in enumerate(indices):
        if not isinstance(index, int) or not 0 <= index < vocab_size:
            hint = " (the mask is not text)" if index == vocab_size else ""
            raise GenmatchError(f"tokens must be integers from 0 to {vocab_size - 1}, got {index!r} at position {place}{hint}.")
    return indices


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise GenmatchError("byte-pair encoding needs tokenizers, which is not installed; run `pip install genmatch[text]`, or use 'characters'.") from None
    return tokenizers
