"""Inside a run: the first document of each packed row replaced by other tokens, and its neighbours left as they are.

Where one document ends and the next begins is read from what the batch says of it: positions that begin at 0 again, a
number for each document, the lengths that have been added up, or a mask of who may see whom.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from pytest_trainguard.faults.turned_rows import parts_of
from pytest_trainguard.recorder.states import digest

__all__ = ["Replaced", "replace_first_documents"]

SHORTEST = 4  # tokens of what is taken for a document
SEVERAL = 3  # documents that are numbered: two may be two segments of one text, as token types are

NO_PACKS = (
    "no batch says where one document of a row ends and the next begins: by positions that begin at 0 again, "
    "numbers of documents, lengths that are added up, or a mask"
)
Spans = list[list[tuple[int, int]]]  # where documents begin and end, by row


@dataclass(frozen=True)
class Replaced:
    """What was done to a batch.

    Attributes:
        rows: how many there are, and the `width` of each, in tokens.
        other: what was replaced, and `kept` what belongs to a document that was not, as row, first position and the one
            after the last; a document's last position is in neither, for its target may be the next one's.
        told: by what documents are told apart.
        ids: a digest of the tokens after that.
        why: it was left as it is.
    """

    rows: int = 0
    width: int = 0
    other: list[tuple[int, int, int]] = field(default_factory=list)
    kept: list[tuple[int, int, int]] = field(default_factory=list)
    told: str = ""
    ids: str = ""
    why: str = ""


def replace_first_documents(batch: object) -> Replaced:
    """Put other tokens of the same batch into the first document of each row that has several, in place."""
    tensors = [part for part in parts_of(batch) if isinstance(part, torch.Tensor) and part.numel() > SHORTEST]
    ids = next((tensor for tensor in tensors if _holds_tokens(tensor)), None)
    if ids is None:
        return Replaced(why=NO_PACKS)
    rows = ids if ids.dim() == 2 else ids[None]
    told, spans = _find_documents([part for part in parts_of(batch) if isinstance(part, torch.Tensor)], rows)
    packed = [(row, found) for row, found in enumerate(spans) if len(found) > 1]
    if not packed:
        return Replaced(why=NO_PACKS)
    inner = torch.cat([rows[row, start + 1 : stop - 1] for row, found in packed for start, stop in found])
    known = [value for value in inner.unique().tolist() if value not in _marks(rows, packed)]
    following = dict(zip(known, [*known[1:], *known[:1]], strict=True)) if len(known) > 1 else {}
    other, kept = [], []
    for row, ((start, stop), *rest) in packed:
        before = rows[row, start + 1 : stop - 1].tolist()
        rows[row, start + 1 : stop - 1] = torch.tensor([following.get(v, v) for v in before], dtype=rows.dtype)
        if rows[row, start + 1 : stop - 1].tolist() != before:
            other.append((row, start, stop))
            kept += [(row, first, last - 1) for first, last in rest]
    if not other:
        return Replaced(why="the documents of a row have no tokens that could stand in each other's place")
    return Replaced(rows.shape[0], rows.shape[1], other, kept, told, digest(ids))


def _marks(rows: torch.Tensor, packed: Sequence[tuple[int, list[tuple[int, int]]]]) -> set[int]:
    """The tokens with which at least half of the documents begin, or end: they mark where one does."""
    spans = [(row, start, stop) for row, found in packed for start, stop in found]
    begins = Counter(int(rows[row, start]) for row, start, _ in spans)
    ends = Counter(int(rows[row, stop - 1]) for row, _, stop in spans)
    return {token for counts in (begins, ends) for token, count in counts.items() if 2 * count >= len(spans)}


def _holds_tokens(tensor: torch.Tensor) -> bool:
    """Whole numbers from 0 on that are no mask, no positions and no numbers of documents, nor lengths added up."""
    if tensor.dim() not in (1, 2) or tensor.is_floating_point() or tensor.dtype == torch.bool:
        return False
    if bool((tensor < 0).any()) or len(tensor.unique()) < SHORTEST:
        return False
    rows = tensor if tensor.dim() == 2 else tensor[None]
    rising = bool((rows[:, 1:] >= rows[:, :-1]).all())
    return not rising and not any(_restarts(row) for row in rows.tolist()) and not any(map(_numbers, rows.tolist()))


def _find_documents(tensors: Sequence[torch.Tensor], rows: torch.Tensor) -> tuple[str, Spans]:
    """By what documents are told apart, and where they are in each row; none where nothing tells."""
    count, width = rows.shape
    for tensor in tensors:
        if tensor.is_floating_point() or tensor.dtype == torch.bool or tensor.dim() > 2:
            continue
        lists = tensor.tolist() if tensor.dim() == 2 else [tensor.tolist()]
        if tensor.shape[-1] == width and len(lists) == count:
            for told, read in (("positions that begin at 0 again", _restarts), ("numbers of documents", _numbers)):
                spans = [read(row) for row in lists]
                if any(len(found) > 1 for found in spans):
                    return told, spans
        if count == 1 and tensor.dim() == 1 and tensor[0] == 0 and tensor[-1] == width:
            ends = tensor.tolist()
            if all(one < two for one, two in itertools.pairwise(ends)):
                return "lengths that are added up", [_long_enough(list(itertools.pairwise(ends)))]
    for tensor in tensors:
        if tensor.dim() > 2 and tensor.shape[-2:] == (width, width) and len(tensor) in (1, count):
            spans = [_blocks(mask) for mask in tensor.reshape(len(tensor), -1, width, width)[:, 0]]
            if any(len(found) > 1 for found in spans):
                return "a mask of who may see whom", spans if len(spans) == count else spans * count
    return "", []


def _long_enough(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(start, stop) for start, stop in spans if stop - start >= SHORTEST]


def _spans_from(starts: list[int], width: int) -> list[tuple[int, int]]:
    return _long_enough(list(itertools.pairwise([*starts, width])))


def _restarts(row: list[int]) -> list[tuple[int, int]]:
    """Of positions that count up from 0, and begin at 0 again, where each document is; else nothing."""
    if row[0] != 0 or any(value not in (0, before + 1) for before, value in itertools.pairwise(row)):
        return []
    found = _spans_from([place for place, value in enumerate(row) if value == 0], len(row))
    return found if len(found) > 1 else []


def _numbers(row: list[int]) -> list[tuple[int, int]]:
    """Of a number for each position, one more with each document, where each is; a 0 at the end is padding."""
    end = len(row)
    while row[0] != 0 and end and row[end - 1] == 0:
        end -= 1
    if not end or row[0] not in (0, 1) or any(two - one not in (0, 1) for one, two in itertools.pairwise(row[:end])):
        return []
    starts = [0, *(place for place in range(1, end) if row[place] != row[place - 1])]
    found = _spans_from(starts, end)
    return found if len(found) >= SEVERAL else []


def _blocks(mask: torch.Tensor) -> list[tuple[int, int]]:
    """Where documents are by a mask [positions, positions]: one begins where nobody may see the one before."""
    allowed = mask == 0 if bool((mask < 0).any()) else mask != 0
    if 2 * int(allowed.diagonal().sum()) < len(allowed):  # it says who may not
        allowed = ~allowed
    seen = allowed.diagonal(-1).tolist()
    counts = allowed.diagonal().tolist()
    starts = [0, *(place for place in range(1, len(counts)) if not seen[place - 1])]
    ends = [next((p for p in range(s, len(counts)) if not counts[p]), len(counts)) for s in starts]
    bounds = zip(starts, [*starts[1:], len(counts)], ends, strict=True)
    return _long_enough([(start, min(following, end)) for start, following, end in bounds])
