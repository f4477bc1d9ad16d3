"""Prepared data: a folder that `trainers.code.prepare` made, its rows as text, tokens and program graphs.

Rows stand in shards, files of safetensors in the layout in which PyTorch Geometric keeps many graphs as one:
their tensors one after the other, and where each begins. They are mapped into memory, so that a folder of any size
takes none of its own, and hold no code that could run.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.code.rows import Row
from trainers.common import files
from trainers.common.errors import InputError, TrainingFailed, reason, show
from trainers.common.pretrained import load_tokenizer
from trainers.common.rows import Split

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

FORMAT_VERSION = 1
MANIFEST = "prepared.json"
TOKENIZER = "tokenizer"
TRUNCATED, CUT, UNPARSED = 1, 2, 4
"""Of each row, in ``flags``: more tokens, more nodes than are kept; no Python."""


def is_prepared(path: Path) -> bool:
    """Whether a folder is prepared data."""
    return (path / MANIFEST).is_file()


class Prepared:
    """The rows of a prepared folder; see `trainers.code.rows.Rows`.

    Attributes:
        path: the folder.
        made: the settings that it was made with.
        split: which rows are held out.
        together: see `trainers.code.rows.Rows`.
        fingerprint: of data and settings.
        feature_size: width of the encoder's hidden states in each graph, 0 where there was no encoder.
        unparsed: the rows that are no Python, and why.

    Raises:
        InputError: a file is missing, cut or altered, or the format is another version's.
    """

    def __init__(self, path: Path) -> None:
        """Check every file against the manifest."""
        self.path = path
        name = f"prepared data {show(path)}"
        try:
            told = json.loads((path / MANIFEST).read_bytes())
            version = told["format_version"]
            if version != FORMAT_VERSION:
                raise InputError(f"{name}: format version {version!r}, this program reads {FORMAT_VERSION}")
            self.made: dict[str, Any] = told["settings"]
            self.together: int = told["together"]
            self.fingerprint: str = told["fingerprint"]
            self.feature_size: int = told["feature_size"]
            self.unparsed: list[str] = told["unparsed"]
            self._shards: list[str] = told["shards"]
            sizes = [told["rows_in_shards"][shard] for shard in self._shards]
            entries = told["files"].items()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{name}: bad {MANIFEST}: {type(error).__name__}: {error}") from None
        except OSError as error:
            raise InputError(f"{name}: {reason(error)}") from None
        for file, entry in entries:
            self._check(path / file, entry)
        self._begins = [0]
        for size in sizes:
            self._begins.append(self._begins[-1] + size)
        self._open: dict[int, dict[str, torch.Tensor]] = {}

    def _check(self, file: Path, entry: dict[str, Any]) -> None:
        # All of it, once: shards are read in random order later, and what is wrong should be known before.
        try:
            if file.stat().st_size != entry["bytes"]:
                raise InputError(f"prepared data {show(file)}: {file.stat().st_size} bytes, not {entry['bytes']}")
            if files.sha256(file) != entry["sha256"]:
                raise InputError(f"prepared data {show(file)}: checksum differs")
        except OSError as error:
            raise InputError(f"prepared data {show(file)}: {reason(error)}") from None
        except (KeyError, TypeError):
            raise InputError(f"prepared data {show(self.path)}: bad entry for {file.name} in {MANIFEST}") from None

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer is whose ids stand in the rows."""
        return self.path / TOKENIZER

    def made_with(self, tokenizer: PreTrainedTokenizerBase) -> bool:
        """Whether the ids in the rows are this tokenizer's."""
        theirs = load_tokenizer(self.tokenizer_folder)
        return bool(theirs.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str())

    @property
    def max_nodes(self) -> int:
        """The most nodes of a graph."""
        return int(self.made["max_nodes"])

    @cached_property
    def split(self) -> Split:
        """Numbers of rows to train on, and of those held out."""
        import torch

        held_out = torch.cat([self._shard(number)["held_out"] for number in range(len(self._shards))])
        train, validation = ((held_out == side).nonzero()[:, 0].numpy() for side in (False, True))
        return Split(train.tolist(), validation.tolist())

    def __len__(self) -> int:
        """The number of rows."""
        return self._begins[-1]

    def __getitem__(self, index: int) -> Row:
        """One row; no tokens where it had more than are kept."""
        shard, at = self.at(index)
        code = bytes(piece(shard, "code", at).numpy()).decode("utf-8")
        whole = not int(shard["flags"][at]) & TRUNCATED
        return Row(code, int(shard["labels"][at]), piece(shard, "tokens", at).tolist() if whole else None)

    def label(self, index: int) -> int:
        """A row's label."""
        shard, at = self.at(index)
        return int(shard["labels"][at])

    def size(self, index: int) -> int:
        """The bytes of a row's code."""
        shard, at = self.at(index)
        return int(shard["code_begins"][at + 1] - shard["code_begins"][at])

    def at(self, index: int) -> tuple[dict[str, torch.Tensor], int]:
        """The shard that a row is in, and its place there."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._begins, index) - 1
        return self._shard(number), index - self._begins[number]

    def _shard(self, number: int) -> dict[str, torch.Tensor]:
        if number not in self._open:
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            file = self.path / self._shards[number]
            try:
                self._open[number] = load_file(file)
            except (SafetensorError, OSError) as error:
                raise TrainingFailed(f"prepared data {show(file)}: cannot be read: {error}") from error
        return self._open[number]


def piece(shard: dict[str, torch.Tensor], name: str, at: int) -> torch.Tensor:
    """The part of a shard's tensor that belongs to the row there; edges and their kinds begin at the same places."""
    begin, end = shard[f"{'edges' if name == 'edge_type' else name}_begins"][at : at + 2].tolist()
    return shard[name][begin:end]
