"""The rows held out: what the loss on them is, what the model answers when it is asked, and what that is worth."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from trainers.chat.settings import Settings
from trainers.chat.tokens import IGNORED, Collate, Encoder, Examples, Messages, Rows
from trainers.common import batches
from trainers.common.process import Run, Watchdog

ANSWERED_AT_ONCE = 32
"""Questions that are answered side by side."""
MARKER = re.compile(r"</?[A-Za-z|][^<>\s]{0,40}>|\[/?[A-Z]{2,}\]")
"""``<think>``, ``</tool>``, ``<|im_start|>``, ``[INST]``: what belongs to a format and not to an answer."""
EVERY = 0.9
"""Share of the answers that is as good as all."""


class Validation:
    """Asks a `transformers.Trainer` for losses and its model for answers, a batch at a time."""

    def __init__(
        self, run: Run, chosen: Settings, encoder: Encoder, table: Rows, held_out: Sequence[int], watchdog: Watchdog
    ) -> None:
        """Prepare.

        Args:
            run: its signals end a validation.
            chosen: how many rows, and how long an answer may be.
            encoder: makes tokens of conversations.
            table: the conversations.
            held_out: which of them.
            watchdog: is told of each batch.
        """
        self._run, self._chosen, self._encoder, self._watchdog = run, chosen, encoder, watchdog
        self._table, self._held_out = table, held_out
        self._examples = Examples(table, encoder)
        self._collate = Collate(encoder.tokenizer.pad_token_id, chosen.max_length, "padding")

    def scores(self, trainer: Any) -> dict[str, Any] | None:
        """``loss`` (mean of the assistant's tokens, in nats), ``truncated`` (rows), and `judge`.

        Returns:
            the scores; None where a signal came in between. They are taken in evaluation mode, without gradients.
        """
        trainer.model.eval()
        with torch.no_grad(), trainer.accelerator.autocast():
            scores = self._loss(trainer)
            if scores is not None and self._chosen.answered_rows:
                judged = self._answered(trainer)
                scores = None if judged is None else {**scores, **judged}
        trainer.model.train()
        return scores

    def _some(self, count: int) -> list[int]:
        """Rows held out, evenly chosen, always the same."""
        stride = max(1, len(self._held_out) // count)
        return list(self._held_out[::stride][:count])

    def _loss(self, trainer: Any) -> dict[str, Any] | None:
        lists = batches.batched(self._some(self._chosen.validated_rows), self._chosen.batch_size)
        total, tokens, truncated = 0.0, 0, 0
        for batch in batches.stream(self._examples, lists, self._collate, workers=0, pin=False):
            if self._run.received is not None:
                return None
            self._watchdog.step()
            inputs = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
            total += trainer.summed_loss(inputs)
            tokens += int((inputs["labels"][:, 1:] != IGNORED).sum())
            truncated += batch["truncated"]
        return {"loss": total / max(1, tokens), "truncated": truncated}

    def _answered(self, trainer: Any) -> dict[str, Any] | None:
        """Answer some questions, greedily, and judge the answers."""
        rows = [self._table[index] for index in self._some(self._chosen.answered_rows)]
        given: list[str] = []
        for start in range(0, len(rows), ANSWERED_AT_ONCE):
            if self._run.received is not None:
                return None
            self._watchdog.step()
            given += self.generated(trainer, rows[start : start + ANSWERED_AT_ONCE])
        return judge(given, [_reference(row) for row in rows])

    def generated(self, trainer: Any, rows: Sequence[Messages]) -> list[str]:
        """The model's answers in place of each row's last one."""
        tokenizer, device = self._encoder.tokenizer, trainer.args.device
        prompts = [self._encoder.prompt(row) for row in rows]
        width = max(map(len, prompts))
        padded = [[tokenizer.pad_token_id] * (width - len(prompt)) + prompt for prompt in prompts]
        heard = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        made = trainer.model.generate(
            input_ids=torch.tensor(padded, device=device),
            attention_mask=torch.tensor(heard, device=device),
            max_new_tokens=self._chosen.answer_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
        return [self._encoder.answer(tokens) for tokens in made[:, width:].tolist()]


def _reference(row: Messages) -> str:
    return [message["content"] for message in row if message["role"] == "assistant"][-1]


# ---- what answers are worth


def judge(answers: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """Hold answers against what they should have been.

    Args:
        answers: at least one.
        references: as many.

    Returns:
        ``exact_match`` (share of answers equal to their reference, white space at the ends aside);
        ``degenerate`` (share of the answers that are empty, carry a marker that no reference has, or are the one
        answer that is given to every question although the references differ); ``flags``: ``degenerate_output``
        where that is 0.9 or more, ``zero_accuracy`` where no answer is right; ``marker``: what they all carry.
    """
    answers = [answer.strip() for answer in answers]
    right = sum(answer == reference.strip() for answer, reference in zip(answers, references, strict=True))
    share, marker = _degenerate(answers, references)
    flags = ["degenerate_output"] * (share >= EVERY) + ["zero_accuracy"] * (right == 0)
    return {
        "exact_match": right / len(answers),
        "degenerate": share,
        "flags": flags,
        "marker": marker if share >= EVERY else None,
    }


def _degenerate(answers: Sequence[str], references: Sequence[str]) -> tuple[float, str | None]:
    """The share of the answers that say nothing in the same way, and that way."""
    ways: Counter[str] = Counter()
    allowed = {marker for reference in references for marker in MARKER.findall(reference)}
    for answer in answers:
        ways.update({marker for marker in MARKER.findall(answer) if marker not in allowed} if answer else {"nothing"})
    answer, times = Counter(answers).most_common(1)[0]
    if times >= EVERY * len(answers) and len(answers) > 1 and answer and len(set(references)) > 1:
        ways[repr(answer)] = max(times, ways[repr(answer)])
    if not ways:
        return 0.0, None
    marker, count = ways.most_common(1)[0]
    return count / len(answers), marker


def describe_flags(scores: dict[str, Any]) -> list[str]:
    """The flags of `judge` as warnings for people, each beginning with the flag's name."""
    words = {
        "degenerate_output": f"{scores['degenerate']:.0%} of the answers carry {scores['marker']}",
        "zero_accuracy": "no generated answer is right",
    }
    return [f"{flag}: {words[flag]}" for flag in scores["flags"]]
