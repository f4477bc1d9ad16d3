"""Inside a run that is looked at closely: which target each row is held against, and where it stands in the row."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from pytest_trainguard.recorder.close_look import MOST_ROWS, CloseLook, rows_of
from pytest_trainguard.recorder.doors import Observer
from pytest_trainguard.recorder.supervision import IGNORED, OVER_CLASSES
from pytest_trainguard.recorder.surroundings import find_caller
from pytest_trainguard.recorder.tensors import bytes_of, tensors_in

AHEAD = (0, 1, 2)  # places by which a target may stand behind the token that it is said at
WRITERS = ("ForCausalLM", "LMHeadModel")  # how transformers' models are called that say the token after each
NEAR = 2  # positions by which a row of targets may be shorter than its tokens: what has none, or is shifted away


class Pairing(Observer):
    """Tells of each loss over classes what it holds against what. Its events are named `look paired`."""

    inner = True

    def __init__(self, look: CloseLook):
        self._look = look
        self._inputs: list[torch.Tensor] = []  # of the last outermost pass with gradients, with a part for each row
        self._tokens: list[torch.Tensor] = []  # what its embeddings read: [rows, tokens]
        self._writes = False  # it is a model of transformers' that writes on
        self._ends: set[int] = set()  # the tokens that end a text, by the model's configuration

    def forward(self, module: torch.nn.Module, *, outermost: bool) -> None:
        if outermost:
            self._tokens = []

    def forwarded(
        self, module: torch.nn.Module, inputs: tuple[object, ...], output: object, *, outermost: bool
    ) -> None:
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return
        if isinstance(module, torch.nn.Embedding):
            self._tokens += [tensor.detach() for tensor in tensors_in(list(inputs)) if tensor.dim() == 2]
        if outermost:
            whole = [tensor.detach() for tensor in tensors_in(list(inputs)) if tensor.dim() and not tensor.is_sparse]
            self._inputs = [tensor for tensor in whole if len(tensor) == len(whole[0])]
            self._writes = any(type(inner).__name__.endswith(WRITERS) for inner in module.modules())
            self._ends = _ends_of(module)

    def scored(self, function: str, arguments: Mapping[str, Any]) -> None:
        scores, target = arguments.get("input"), arguments.get("target")
        if function not in OVER_CLASSES or not isinstance(scores, torch.Tensor) or not isinstance(target, torch.Tensor):
            return
        count = len(self._inputs[0]) if self._inputs else 0
        if not scores.requires_grad or target.is_floating_point() or not target.dim() or not 0 < count <= MOST_ROWS:
            return
        if target.numel() % count or (target.dim() > 1 and len(target) != count):
            return
        with contextlib.suppress(Exception):  # a fake tensor, which has no values
            table = target.detach().reshape(count, -1)
            counts = table != arguments.get("ignore_index", IGNORED)
            told = [hashlib.blake2b(bytes_of(r[k]), digest_size=6).hexdigest()
                    for r, k in zip(table, counts, strict=True)]  # fmt: skip
            self._look.write(
                "paired",
                function=function,
                place=find_caller(),
                rows=self._rows_beside(table),
                targets=told,
                square=target.dim() == 1 and scores.dim() == 2 and scores.shape[1] == count,
                writes=self._writes,
                ahead=[self._ahead(table, counts, by) for by in AHEAD],
                ends=sorted(self._ends),
                closed=self._closed(table, counts) if self._ends else [0, 0, 0],
            )

    def _rows_beside(self, targets: torch.Tensor) -> list[str]:
        """A digest of all that goes in of each row: two pictures, or a text and its length. Not of the targets."""
        digests = [rows_of((one,)) for one in self._inputs if not _are_same(one, targets)]
        return ["".join(parts) for parts in zip(*digests, strict=True)]

    def _ahead(self, table: torch.Tensor, counts: torch.Tensor, by: int) -> list[int]:
        """How many targets are the token so many places behind their own, and of how many that count.

        Of several texts that go in (what is to be translated, and what was said so far) the one that fits best.
        """
        best = [0, 0]
        for tokens in self._tokens:
            width = min(table.shape[1], tokens.shape[1] - by)
            if len(tokens) != len(table) or not 0 <= tokens.shape[1] - table.shape[1] <= NEAR or width < 1:
                continue
            kept = counts[:, :width].to(tokens.device)
            same = (tokens[:, by : by + width] == table[:, :width].to(tokens.device)) & kept
            best = max(best, [int(same.sum()), int(kept.sum())])
        return best

    def _closed(self, table: torch.Tensor, counts: torch.Tensor) -> list[int]:
        """How many targets are the last of a piece, how many of these the end of a text follows, and how many are one.

        Of targets that are the token after their own.
        """
        ends = torch.tensor(sorted(self._ends), device=table.device)
        for tokens in self._tokens:
            if len(tokens) == len(table) and 0 <= tokens.shape[1] - table.shape[1] <= NEAR:
                width = min(table.shape[1], tokens.shape[1] - 2)
                last = counts[:, :width] & ~torch.nn.functional.pad(counts, (0, 1))[:, 1 : width + 1]
                followed = torch.isin(tokens[:, 2 : width + 2].to(table.device), ends) & last
                return [int(one.sum()) for one in (last, followed, torch.isin(table, ends) & counts)]
        return [0, 0, 0]


def _ends_of(module: torch.nn.Module) -> set[int]:
    """`eos_token_id` of a model's configuration, or of one inside it: a number or several."""
    for inner in module.modules():
        named = getattr(getattr(inner, "config", None), "eos_token_id", None)
        found = {one for one in (named if isinstance(named, list | tuple) else [named]) if isinstance(one, int)}
        if found:
            return found
    return set()


def _are_same(one: torch.Tensor, targets: torch.Tensor) -> bool:
    return one.numel() == targets.numel() and bool((one.reshape_as(targets) == targets).all())
