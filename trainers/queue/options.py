"""The queue's settings: one typed model, from ``queue.toml`` or ``queue.json`` in its folder."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from trainers.common import settings
from trainers.common.errors import InputError, show

FILES = ("queue.toml", "queue.json")
PLACEHOLDERS = ("{settings}", "{data}", "{output_dir}", "{resume_from}", "{status_dir}")
OWN_TRAINER = "trainers.chat.lora"


class QueueSettings(BaseModel):
    """What a queue is told. Times are seconds."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)

    trainer: list[str] = Field(
        [
            *(sys.executable, "-m", OWN_TRAINER, "--settings", "{settings}", "--data", "{data}"),
            *("--output-dir", "{output_dir}", "--resume-from", "{resume_from}", "--status-dir", "{status_dir}"),
        ],
        min_length=1,
        description="the training program's words; " + " ".join(PLACEHOLDERS) + " are filled in, and a word whose "
        "placeholder has no value is left out with the option before it",
    )
    trainer_settings: dict[str, Any] = Field({}, description="what is written into the file at {settings}")
    preload: list[str] | None = Field(
        None,
        description="modules that are imported once, for every trainer that this Python runs (-m MODULE, or a script): "
        "it is forked from a process that has them, and imports nothing again; left out: what the own trainer needs, "
        "and of another one nothing; []: each is started anew",
    )
    suffixes: list[str] = Field([".jsonl"], min_length=1, description="what the names of training files end in")
    settle_seconds: float = Field(
        1.0, ge=0, le=86_400, description="a file that has not changed for so long is finished"
    )
    unfinished_seconds: float = Field(
        5.0, ge=0, le=86_400, description="the same for one whose last line is cut: longer, and then it is rejected"
    )
    poll_seconds: float = Field(0.2, gt=0, le=60, description="pause between two looks at folders and trainer")
    starvation_bound: int = Field(
        10, ge=2, le=1_000_000, description="the first file of a lower priority waits for at most so many others"
    )
    max_attempts: int = Field(3, ge=1, le=1000, description="a file that failed so many times is tried no more")
    backoff_seconds: float = Field(1.0, ge=0, le=86_400, description="pause after the first failure; then doubled")
    backoff_max: float = Field(300.0, ge=0, le=604_800, description="longest pause between two attempts")
    heartbeat_timeout: float = Field(
        900.0, gt=0, le=604_800, description="a trainer that shows no sign of life for so long hangs"
    )
    end_timeout: float = Field(
        600.0, gt=0, le=86_400, description="how long a trainer may take to save and end after a signal"
    )
    recover_out_of_memory: bool = Field(True, description="try again with half the batch, at the same effective batch")
    recover_nan: bool = Field(True, description="try once more from the last checkpoint, with a smaller learning rate")
    recover_disk_full: bool = Field(True, description="wait for room, and try again")
    recover_hang: bool = Field(True, description="try again after a hang")
    batch_size_field: str = Field("batch_size", description="the trainer's name of rows in one forward pass")
    accumulation_field: str = Field("gradient_accumulation", description="of forward passes in one optimizer step")
    learning_rate_field: str = Field("learning_rate", description="of the learning rate")
    min_batch_size: int = Field(1, ge=1, le=65_536, description="out of memory: the batch is not halved below this")
    max_accumulation: int = Field(128, ge=1, le=65_536, description="out of memory: accumulation stays within this")
    nan_rate_factor: float = Field(0.5, gt=0, lt=1, description="NaN: the learning rate is multiplied by this")
    min_learning_rate: float = Field(1e-6, ge=0, le=1, description="NaN: the learning rate stays over this")
    min_free_mib: float = Field(100.0, ge=0, le=1e9, description="nothing is started with less room on the disk")
    disk_wait_seconds: float = Field(3600.0, ge=0, le=604_800, description="how long to wait for room")
    memory_warning: float = Field(0.5, gt=0, le=1, description="share still in use after a file that is warned of")
    alert_command: list[str] | None = Field(
        None, min_length=1, description="program that is given each alert, one JSON object, on its stdin"
    )
    alert_file: str | None = Field(None, min_length=1, description="file that each alert is added to, as a JSON line")

    @field_validator("suffixes")
    @classmethod
    def _suffixes_begin_with_a_dot(cls, suffixes: list[str]) -> list[str]:
        if not all(suffix.startswith(".") and len(suffix) > 1 for suffix in suffixes):
            raise ValueError('each must begin with a dot, as ".jsonl" does')
        return [suffix.lower() for suffix in suffixes]

    @model_validator(mode="after")
    def _what_belongs_together(self) -> QueueSettings:
        if not any("{data}" in word for word in self.trainer):
            raise ValueError("trainer: {data} is nowhere in it, so that it would never see a file")
        if self.backoff_max < self.backoff_seconds:
            raise ValueError(
                f"backoff_max = {self.backoff_max} is smaller than backoff_seconds = {self.backoff_seconds}"
            )
        return self

    @property
    def own(self) -> bool:
        """Whether the trainer is this repository's own, whose rows and settings are known here."""
        return self.trainer[1:3] == ["-m", OWN_TRAINER]


def load(root: Path) -> QueueSettings:
    """The settings in a queue's folder; the defaults where there are none.

    Raises:
        InputError: one line for each fault.
    """
    there = [root / name for name in FILES if os.path.lexists(root / name)]
    if len(there) > 1:
        raise InputError(f"{show(root)}: both {FILES[0]} and {FILES[1]} are there: remove one")
    if not there:
        return QueueSettings()  # type: ignore[call-arg, unused-ignore]
    try:
        return settings.check(QueueSettings, settings.read_file(there[0]))
    except InputError as error:
        raise InputError(*(f"{there[0].name}: {line}" for line in error.lines)) from None


def require_program(chosen: QueueSettings) -> None:
    """A program that is not there would fail every file of a night.

    Raises:
        InputError: the trainer or the alert command cannot be found.
    """
    named = {"trainer": chosen.trainer, "alert_command": chosen.alert_command}
    missing = [
        f"{name}: there is no program {show(words[0])}"
        for name, words in named.items()
        if words and shutil.which(words[0]) is None
    ]
    if missing:
        raise InputError(*missing)


def command(chosen: QueueSettings, values: dict[str, str | None]) -> list[str]:
    """The trainer's words.

    Args:
        chosen: the settings.
        values: for each of `PLACEHOLDERS`; None: there is no value.
    """
    words: list[str] = []
    for word in chosen.trainer:
        names = [name for name in PLACEHOLDERS if name in word]
        if any(values[name] is None for name in names):
            if word in names and words and words[-1].startswith("-") and "=" not in words[-1]:
                words.pop()
            continue
        words.append(_filled(word, {name: str(values[name]) for name in names}))
    return words


def _filled(word: str, values: dict[str, str]) -> str:
    """In one pass: a file may be called ``{data}``."""
    if not values:
        return word
    name = min(values, key=lambda name: word.index(name) if name in word else len(word))
    before, found, after = word.partition(name)
    return before + values[name] + _filled(after, values) if found else word
