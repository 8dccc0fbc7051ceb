"""Texts as the numbers that a text tower takes, by the tokenizer's file beside its weights.

Marks of begin and end, padding and what is cut off are the originals', whatever the file says of
them: files of one and the same tokenizer differ in that.
"""

import re
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Int

from mlcls_jax import lazy
from mlcls_jax.errors import WeightsError
from mlcls_jax.models.text_tower import TextConfig

# Of CLIP's tokenizer, of Gemma's in SigLIP 2, and of that of the first SigLIP, in whose vocabulary
# there is no other mark: begin, end, padding.
_MARKS = (
    ("<|startoftext|>", "<|endoftext|>", "<|endoftext|>"),
    (None, "<eos>", "<pad>"),
    (None, "</s>", "</s>"),
)


PIECES = "spiece.model"  # what SentencePiece writes

# Numbers by token, and texts → their tokens' numbers.
_Read: TypeAlias = tuple[dict[str, int], Callable[[list[str]], list[list[int]]]]


class Tokenizer:
    """Texts → tokens [B, N] of the tower's context."""

    def __init__(self, path: Path, config: TextConfig) -> None:
        """Read the file.

        Raises:
          WeightsError: it is missing, damaged, or belongs to another tower.
        """
        numbers, self._encode = (_read_pieces if path.name.endswith(PIECES) else _read)(path)
        marks = next((m for m in _MARKS if {*m} <= {None, *numbers}), None)
        if marks is None or max(numbers.values()) >= config.vocabulary:
            raise WeightsError(
                f"{path}: is not the tokenizer of these weights, of {config.vocabulary} tokens",
                f"Take {path.name} from where the weights come from.",
            )
        begin, end, padding = (None if mark is None else numbers[mark] for mark in marks)
        self._begin, self._end = [] if begin is None else [begin], [end]
        self._padding, self._context, self._kind = padding, config.context, config.kind
        self._is_first_siglip = marks == _MARKS[-1]

    def __call__(self, texts: Sequence[str]) -> Int[np.ndarray, "B N"]:
        tokens = np.full((len(texts), self._context), self._padding, np.int32)
        room = self._context - len(self._begin) - len(self._end)
        cleaned = [self._cleaned(text) for text in texts]
        for row, found in zip(tokens, self._encode(cleaned), strict=True):
            told = [*self._begin, *found[:room], *self._end]
            row[: len(told)] = told
        return tokens

    def _cleaned(self, text: str) -> str:
        """Return a text as SigLIP saw it: in small letters, and at first without punctuation."""
        if self._kind == "clip":  # its tokenizer does as much by itself
            return text
        text = text.lower()
        if self._is_first_siglip:
            text = text.translate(str.maketrans("", "", string.punctuation))
            text = re.sub(r"\s+", " ", text).strip()
        return text


def _read(path: Path) -> _Read:
    with lazy.optional("texts are cut into tokens", extra="words", kind=WeightsError):
        import tokenizers  # an extra
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library has no type of its own
        raise WeightsError(f"{path}: cannot be read as a tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer.get_vocab(), lambda texts: [
        found.ids for found in tokenizer.encode_batch(texts, add_special_tokens=False)
    ]


def _read_pieces(path: Path) -> _Read:
    with lazy.optional(f"{path}: is SentencePiece's", extra="sentencepiece", kind=WeightsError):
        import sentencepiece  # an extra
    try:
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except Exception as error:  # RuntimeError and OSError, as it comes
        raise WeightsError(f"{path}: cannot be read by SentencePiece: {error}") from error
    numbers = {pieces.id_to_piece(number): number for number in range(pieces.get_piece_size())}
    return numbers, pieces.encode
