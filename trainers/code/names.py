"""Which name each token is of: the names of a text numbered in the order in which they first stand in it.

To see a variable in the wrong place, one has to see which uses are of the same variable. A transformer with tokens
and positions alone must learn that for each name anew; told the numbers, it learns it once for all names.
"""

from __future__ import annotations

import keyword
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_NAMES = 39
"""Names of one text that are told apart; further ones have the last number."""
UNPRINTABLE = range(0x100, 0x121)
"""As which characters a byte-level tokenizer writes the bytes up to the space."""


class NameNumbers:
    """Numbers the names in rows of tokens; for the tokenizers of `trainers.code.tokenizer`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Look which tokens of the vocabulary are parts of names, keywords or numbers."""
        self._texts = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        special = set(tokenizer.all_special_ids)
        self._word = [index not in special and all(map(_in_word, text or "")) for index, text in enumerate(self._texts)]

    def __call__(self, ids: Sequence[int]) -> list[int]:
        """The number of the name that each token is of, from 1; 0 for a token of none.

        Args:
            ids: of one text, uncut or cut. Between two names there is always a token of neither.
        """
        numbers, known, begin = [0] * len(ids), dict[str, int](), 0
        while begin < len(ids):
            end = begin
            while end < len(ids) and self._word[ids[end]]:
                end += 1
            text = "".join(self._texts[index] for index in ids[begin:end])
            if text and not text[0].isdigit() and not keyword.iskeyword(text):
                number = min(known.setdefault(text, len(known) + 1), MOST_NAMES)
                numbers[begin:end] = [number] * (end - begin)
            begin = end + 1
        return numbers


def _in_word(character: str) -> bool:
    """Whether a character of a token's text is of a letter, a digit or an underscore."""
    if character.isascii():
        return character.isalnum() or character == "_"
    return ord(character) not in UNPRINTABLE
