"""Conversations as tokens: the tokenizer's chat template, and which tokens are the assistant's."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from trainers.common.errors import InputError, TrainingFailed
from trainers.common.pretrained import CHARACTERS_PER_TOKEN

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

Messages = list[dict[str, str]]
IGNORED = -100
"""The label of tokens that nothing is learned from; torch's cross-entropy leaves them out."""


class Rows(Protocol):
    """Conversations by number."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, index: int) -> Messages:
        """One of them."""


class Example(NamedTuple):
    """One conversation as tokens.

    Attributes:
        tokens: ids, at most ``max_length``.
        labels: the id where a token is the assistant's, else `IGNORED`; as many.
        truncated: there was more.
    """

    tokens: list[int]
    labels: list[int]
    truncated: bool

    @property
    def learned(self) -> int:
        """The tokens that something is learned from."""
        return sum(label != IGNORED for label in self.labels[1:])


class Encoder:
    """Makes `Example` of conversations, and prompts of their beginnings."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        """Of at most ``max_length`` tokens.

        Raises:
            InputError: the tokenizer has no chat template, or does not tell where in the text its tokens stand.
        """
        if not tokenizer.chat_template:
            raise InputError("the tokenizer has no chat template: it is of a base model, not of a chat model")
        if not tokenizer.is_fast:
            raise InputError("the tokenizer does not tell where in the text its tokens stand (it is a slow one)")
        self.tokenizer = tokenizer
        self.max_length = max_length

    def __call__(self, messages: Messages) -> Example:
        """The tokens of a conversation, the assistant's marked: what it says, and that it has ended.

        Of one that is too long, the beginning; or, where no answer is in that, what stands around the beginning of
        the last answer.

        Raises:
            TrainingFailed: the template does not write a conversation as its beginning and the rest.
        """
        whole = self._text(messages)
        spans = [self._span(messages, place, whole) for place in _answers(messages)]
        example = self._cut(whole, spans, 0)
        return example if example.learned else self._cut(whole, spans, spans[-1][0])

    def _cut(self, whole: str, spans: list[tuple[int, int]], around: int) -> Example:
        """At most ``max_length`` tokens, half of them before a place in the text where there are so many."""
        most = self.max_length * CHARACTERS_PER_TOKEN
        begin = max(0, around - most // 2)
        encoded = self.tokenizer(
            whole[begin : begin + most], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        tokens: list[int] = encoded["input_ids"]
        starts = [begin + first for first, _ in encoded["offset_mapping"]]
        labels = [IGNORED] * len(tokens)
        for start, end in spans:
            said = slice(bisect_left(starts, start), bisect_left(starts, end))
            labels[said] = tokens[said]
        first = max(0, min(len(tokens) - self.max_length, bisect_left(starts, around) - self.max_length // 2))
        kept = slice(first, first + self.max_length)
        return Example(tokens[kept], labels[kept], len(tokens) > self.max_length or len(whole) > most)

    def prompt(self, messages: Messages) -> list[int]:
        """All before the last answer, to be answered; the newest ``max_length`` tokens of it."""
        text = self._text(messages[: _answers(messages)[-1]], to_be_answered=True)
        text = text[-self.max_length * CHARACTERS_PER_TOKEN :]
        tokens: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return tokens[-self.max_length :]

    def answer(self, tokens: Sequence[int]) -> str:
        """Generated tokens as text, up to the end of the turn."""
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text.strip()

    def _text(self, messages: Messages, to_be_answered: bool = False) -> str:
        text: str = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=to_be_answered)  # type: ignore[assignment, unused-ignore]
        return text

    def _span(self, messages: Messages, place: int, whole: str) -> tuple[int, int]:
        """From where to where in the text one answer stands, the mark of its end included."""
        before = self._text(messages[:place], to_be_answered=True)
        until = whole if place + 1 == len(messages) else self._text(messages[: place + 1])
        if not (whole.startswith(until) and until.startswith(before)):
            raise TrainingFailed(
                "the chat template writes the beginning of a conversation otherwise than the conversation "
                f"(before messages[{place}]): the assistant's tokens cannot be told from the others"
            )
        return len(before), len(until.rstrip())


def _answers(messages: Messages) -> list[int]:
    return [place for place, message in enumerate(messages) if message["role"] == "assistant"]


class Examples:
    """A data set for torch's loader: rows as `Example`, made when they are wanted."""

    def __init__(self, rows: Rows, encoder: Encoder) -> None:
        """Of these rows."""
        self._rows, self._encoder = rows, encoder

    def __len__(self) -> int:
        """As many as there are rows."""
        return len(self._rows)

    def __getitem__(self, index: int) -> Example:
        """One row."""
        return self._encoder(self._rows[index])


class Collate:
    """Lays examples out as the tensors of one forward pass."""

    def __init__(self, pad: int, max_length: int, layout: str) -> None:
        """Prepare.

        Args:
            pad: the id of padding.
            max_length: tokens that a line may have.
            layout: ``padding``: one example a line. ``packing``: as many behind each other as fit into a line, in
                their order; positions start again at 0 with each, by which transformers keeps them apart.
        """
        self._pad, self._max_length, self._packed = pad, max_length, layout == "packing"

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """The batch: tensors of shape (lines, tokens), and counts under ``rows`` and ``truncated``."""
        lines = self._lines(examples) if self._packed else [[example] for example in examples]
        width = max(sum(len(example.tokens) for example in line) for line in lines)
        batch = {
            "input_ids": self._padded([_flat(e.tokens for e in line) for line in lines], width, self._pad),
            "labels": self._padded([_flat(e.labels for e in line) for line in lines], width, IGNORED),
        }
        if self._packed:
            positions = [[place for e in line for place in range(len(e.tokens))] for line in lines]
            rests = [[*line, *range(width - len(line))] for line in positions]  # padding is one more, unheard
            batch["position_ids"] = self._padded(rests, width, 0)
            # The first token of each has no label: nothing is learned from the end of the one before.
            batch["labels"][batch["position_ids"] == 0] = IGNORED
        else:
            batch["attention_mask"] = self._padded([[1] * len(line[0].tokens) for line in lines], width, 0)
        return {**batch, "rows": len(examples), "truncated": sum(example.truncated for example in examples)}

    def _lines(self, examples: Sequence[Example]) -> list[list[Example]]:
        lines: list[list[Example]] = []
        room: list[int] = []
        for example in examples:
            size = len(example.tokens)
            place = next((place for place, left in enumerate(room) if left >= size), None)
            if place is None:
                lines.append([example])
                room.append(self._max_length - size)
            else:
                lines[place].append(example)
                room[place] -= size
        return lines

    @staticmethod
    def _padded(lines: list[list[int]], width: int, value: int) -> torch.Tensor:
        import torch

        return torch.tensor([line + [value] * (width - len(line)) for line in lines])


def _flat(parts: Any) -> list[int]:
    return [number for part in parts for number in part]
