"""The rows that are made for predicting memory: as long as they must be, and no dearer to read than they must be."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from trainers.code import samples
from trainers.code.graph import program_graph
from trainers.code.rows import RowFile
from trainers.common.rows import split_by_content

LENGTH = 4096


@pytest.fixture(scope="module")
def longest(tmp_path_factory: pytest.TempPathFactory) -> RowFile:
    """As many rows as a trace of the graph network asks for."""
    path = tmp_path_factory.mktemp("longest") / "rows.jsonl"
    samples.write_longest(path, 384, 0, LENGTH)
    return RowFile(path)


def test_a_few_functions_stand_for_most_rows(longest: RowFile) -> None:
    codes = Counter(longest[index].code for index in range(len(longest)))
    assert len(longest) == 384
    often = [code for code, count in codes.items() if count > 1]
    assert len(often) == samples.REPEATED
    assert len(codes) < len(longest) / 4
    assert all(len({longest.label(index) for index in range(len(longest)) if longest[index].code == code}) == 1
               for code in often)  # fmt: skip


def test_they_have_the_names_that_fill_a_vocabulary(longest: RowFile) -> None:
    rows = [longest[index].code for index in range(len(longest))]
    names = Counter(name for code in set(rows) for name in re.findall(r"\b[a-z]{6}\b", code) if name != "return")
    assert len(names) > 0.99 * samples.NAMES
    assert sum(count < 2 for count in names.values()) < 0.01 * len(names)


def test_long_rows_reach_their_length_and_have_one_shape(longest: RowFile) -> None:
    graphs = [program_graph.read(longest[index].code, LENGTH) for index in (16, 17, 300, 383)]
    assert all(len(graph.kinds) == LENGTH for graph in graphs)
    assert len({len(graph.edges) for graph in graphs}) == 1
    short = program_graph.read(longest[15].code, LENGTH)
    assert len(short.kinds) < 32
    assert not short.cut


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_about_the_usual_share_of_them_is_held_out(longest: RowFile, share: float) -> None:
    held_out = len(split_by_content(longest, share).validation) / len(longest)
    assert held_out == pytest.approx(share, abs=0.06)


def test_where_all_rows_are_needed_for_the_names_each_is_another(tmp_path: Path) -> None:
    samples.write_longest(tmp_path / "rows.jsonl", 64, 0, 512)
    table = RowFile(tmp_path / "rows.jsonl")
    assert len({table[index].code for index in range(len(table))}) == len(table) == 64
