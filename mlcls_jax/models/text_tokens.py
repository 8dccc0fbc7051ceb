"""Texts as the numbers that a text tower takes, by the `tokenizer.json` beside its weights.

Marks of begin and end, padding and what is cut off are the originals', whatever the file says of
them: files of one and the same tokenizer differ in that.
"""

import re
import string
from collections.abc import Sequence
from pathlib import Path

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


class Tokenizer:
    """Texts → tokens [B, N] of the tower's context."""

    def __init__(self, path: Path, config: TextConfig) -> None:
        """Read the file.

        Raises:
          WeightsError: it is missing, damaged, or belongs to another tower.
        """
        with lazy.optional("texts are cut into tokens", extra="words", kind=WeightsError):
            import tokenizers  # an extra
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library has no type of its own
            raise WeightsError(f"{path}: cannot be read as a tokenizer: {error}") from error
        number = self._tokenizer.token_to_id
        marks = next(
            (m for m in _MARKS if all(t is None or number(t) is not None for t in m)), None
        )
        if marks is None or max(self._tokenizer.get_vocab().values()) >= config.vocabulary:
            raise WeightsError(
                f"{path}: is not the tokenizer of these weights, of {config.vocabulary} tokens",
                "Take tokenizer.json from where the weights come from.",
            )
        begin, end, padding = (None if mark is None else number(mark) for mark in marks)
        self._begin, self._end = [] if begin is None else [begin], [end]
        self._padding, self._context, self._kind = padding, config.context, config.kind
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._is_first_siglip = marks == _MARKS[-1]

    def __call__(self, texts: Sequence[str]) -> Int[np.ndarray, "B N"]:
        tokens = np.full((len(texts), self._context), self._padding, np.int32)
        room = self._context - len(self._begin) - len(self._end)
        cleaned = [self._cleaned(text) for text in texts]
        found = self._tokenizer.encode_batch(cleaned, add_special_tokens=False)
        for row, encoding in zip(tokens, found, strict=True):
            told = [*self._begin, *encoding.ids[:room], *self._end]
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
