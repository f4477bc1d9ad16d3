"""Conversations as tokens: the assistant's tokens are counted one by one."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import pytest

from trainers.chat import syllogisms, tiny_llama, validation
from trainers.chat.tokens import IGNORED, Collate, Encoder, Example
from trainers.common.errors import InputError, TrainingFailed

SYSTEM, QUESTION = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who? 🙂"}


@cache
def encoder(max_length: int = 256) -> Encoder:
    return Encoder(tiny_llama.tokenizer(), max_length)


def said(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def learned(example: Example) -> list[int]:
    return [label for label in example.labels if label != IGNORED]


def test_only_the_assistants_tokens_are_learned() -> None:
    tokenizer = encoder().tokenizer
    example = encoder()([SYSTEM, QUESTION, said("Me: שלום 🙂."), QUESTION, said("You.")])
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("Me: שלום 🙂.", "You."))
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert learned(example) == [*first, end, *second, end]
    assert example.learned == len(first) + len(second) + 2
    everything = tokenizer.apply_chat_template(
        [SYSTEM, QUESTION, said("Me: שלום 🙂."), QUESTION, said("You.")], tokenize=True, return_dict=False
    )
    assert example.tokens == everything
    assert all(label in (IGNORED, token) for token, label in zip(example.tokens, example.labels, strict=True))
    assert not example.truncated


def test_every_syllogism_learns_exactly_its_answer() -> None:
    tokenizer = encoder().tokenizer
    for row in itertools.islice(syllogisms.rows("hard", 1), 50):
        answer = tokenizer(row["messages"][-1]["content"] + "<|end|>", add_special_tokens=False)["input_ids"]
        assert learned(encoder()(row["messages"])) == answer


def test_any_text_survives_the_tokenizer() -> None:
    tokenizer = encoder().tokenizer
    text = "🙂 שלום e\u0301 \x07 日本 \u2028 " + "".join(map(chr, range(32, 1000)))
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_a_long_row_is_cut_and_says_so() -> None:
    row = [QUESTION, said("word " * 20_000)]
    example = encoder(128)(row)
    assert (len(example.tokens), len(example.labels), example.truncated) == (128, 128, True)


def test_of_a_row_whose_answer_is_too_far_away_its_surroundings_are_kept() -> None:
    question = {"role": "user", "content": "word " * 20_000 + "Why?"}
    whole = encoder(128)([question, said("Yes.")])
    assert whole.truncated
    assert len(whole.tokens) == 128
    text = encoder().tokenizer.decode(whole.tokens)
    assert text.endswith("word Why?<|end|><|assistant|>Yes.<|end|>")
    assert learned(whole) == encoder().tokenizer("Yes.<|end|>", add_special_tokens=False)["input_ids"]
    long = encoder(128)([question, said("yes " * 20_000)])
    assert (len(long.tokens), long.learned) == (128, 64)


def test_a_prompt_that_is_too_long_keeps_its_end() -> None:
    prompt = encoder(128).prompt([{"role": "user", "content": "word " * 20_000 + "Why?"}, said("Yes.")])
    assert len(prompt) == 128
    assert encoder().tokenizer.decode(prompt).endswith("word Why?<|end|><|assistant|>")


def test_a_prompt_ends_where_the_answer_begins() -> None:
    messages = [SYSTEM, QUESTION, said("Me."), QUESTION, said("You.")]
    example, prompt = encoder()(messages), encoder().prompt(messages)
    assert example.tokens[: len(prompt)] == prompt
    assert example.tokens[len(prompt) :] == learned(example)[-len(example.tokens) + len(prompt) :]
    assert encoder().answer(example.tokens[len(prompt) :]) == "You."


class Changed:
    """A tokenizer with something else about it."""

    def __init__(self, **changes: Any) -> None:
        self._changes = changes

    def __getattr__(self, name: str) -> Any:
        return self._changes[name] if name in self._changes else getattr(encoder().tokenizer, name)


@pytest.mark.parametrize(
    ("changes", "says"), [({"chat_template": None}, "no chat template"), ({"is_fast": False}, "a slow one")]
)
def test_tokenizers_that_cannot_be_used(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Encoder(Changed(**changes), 256)  # type: ignore[arg-type]


def test_a_template_that_rewrites_earlier_turns_is_named() -> None:
    tokenizer = tiny_llama.tokenizer()
    tokenizer.chat_template = "{{ messages | length }}" + tiny_llama.TEMPLATE
    with pytest.raises(TrainingFailed, match=r"chat template writes the beginning .*before messages\[1\]"):
        Encoder(tokenizer, 256)([QUESTION, said("Me."), QUESTION, said("You.")])


def example(*tokens: int, learned_from: int) -> Example:
    return Example(list(tokens), [IGNORED] * learned_from + list(tokens[learned_from:]), False)


def test_packing_puts_rows_behind_each_other() -> None:
    rows = [example(5, 6, 7, learned_from=2), example(8, 9, learned_from=1), example(10, 11, 12, 13, learned_from=0)]
    batch = Collate(0, 6, "packing")(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9], [10, 11, 12, 13, 0]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 3, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 7, -100, 9], [-100, 11, 12, 13, -100]]
    assert batch["rows"] == 3


def test_padding_puts_rows_under_each_other() -> None:
    batch = Collate(0, 6, "padding")([example(5, 6, 7, learned_from=2), example(8, 9, learned_from=1)])
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 7], [-100, 9, -100]]


@pytest.mark.parametrize(
    ("given", "references", "exact", "degenerate", "flags"),
    [
        (["a", " b\n"], ["a", "b"], 1.0, 0.0, []),
        (["a", "x"], ["a", "b"], 0.5, 0.0, []),
        (["x", "y"], ["a", "b"], 0.0, 0.0, ["zero_accuracy"]),
        (["<think> a", "<think> b"], ["a", "b"], 0.0, 1.0, ["degenerate_output", "zero_accuracy"]),
        (["<b>a", "b"], ["a", "b"], 0.5, 0.5, []),
        (["<b>a", "<b>c"], ["<b>a", "<b>b"], 0.5, 0.0, []),  # the references have it too
        (["", " "], ["a", "b"], 0.0, 1.0, ["degenerate_output", "zero_accuracy"]),
        (["a", "a"], ["a", "b"], 0.5, 1.0, ["degenerate_output"]),  # one answer to every question
        (["a", "a"], ["a", "a"], 1.0, 0.0, []),  # rightly
        (["a"], ["b"], 0.0, 0.0, ["zero_accuracy"]),
    ],
)
def test_answers_are_judged(
    given: list[str], references: list[str], exact: float, degenerate: float, flags: list[str]
) -> None:
    judged = validation.judge(given, references)
    assert (judged["exact_match"], judged["degenerate"], judged["flags"]) == (exact, degenerate, flags)
    assert len(validation.describe_flags(judged)) == len(flags)


def test_what_all_answers_carry_is_named() -> None:
    judged = validation.judge(["<think>1", "<think>2", "<think>3"], ["1", "2", "3"])
    assert validation.describe_flags(judged)[0] == "degenerate_output: 100% of the answers carry <think>"
