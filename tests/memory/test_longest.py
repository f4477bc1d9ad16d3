"""Rows made as long as a program reads them."""

import csv
import json

import pytest

from pytest_trainguard.rows.longest import CHARACTERS, ORDINARY, stretch_rows, vary_rows

ROWS = [
    {"text": f"row {i} of few words", "label": "good", "meta": {"source": "here and there", "n": i}} for i in range(8)
]


def texts_of(rows):
    return [row["text"] for row in rows]


def held(rows, length):
    """Most rows are long, a few are as they were, and none is twice there."""
    assert len(rows) == 24
    long = [row for row in rows if len(row["text"]) >= length * CHARACTERS]
    short = [row for row in rows if row in ROWS]
    assert len(long) == 20
    assert len(short) == 4
    assert len(set(texts_of(long))) == 20
    assert all(row["text"].startswith("row ") for row in rows)
    assert {row["label"] for row in rows} == {"good"}


def test_lines(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)) + "\n")
    assert stretch_rows(path, 24, 100) == path
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    held(rows, 100)
    assert [row["meta"]["n"] for row in rows[:8]] == list(range(8))
    assert len(rows[1]["meta"]["source"]) >= 100 * CHARACTERS


@pytest.mark.parametrize("wrapped", [False, True])
def test_json(tmp_path, wrapped):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"version": "1", "data": ROWS} if wrapped else ROWS))
    stretch_rows(path, 24, 100)
    content = json.loads(path.read_text())
    held(content["data"] if wrapped else content, 100)


def test_csv(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"{row['text']},good\n" for row in ROWS))
    stretch_rows(path, 24, 100)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len([row for row in rows if len(row["text"]) >= 100 * CHARACTERS]) == 20


def test_what_cannot_be_made_longer_is_said(tmp_path):
    numbers = tmp_path / "numbers.jsonl"
    numbers.write_text('{"x": [1, 2], "y": 0}\n')
    with pytest.raises(ValueError, match=r"numbers.jsonl: holds no text to make longer: override make_longest"):
        stretch_rows(numbers, 4, 10)
    table = tmp_path / "rows.parquet"
    table.write_bytes(b"")
    with pytest.raises(ValueError, match=r"rows.parquet: rows of this kind cannot be made longer"):
        stretch_rows(table, 4, 10)


def test_rows_of_all_lengths(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)) + "\n")
    assert vary_rows(path, 400, 100) == path
    sizes = [len(json.loads(line)["text"]) for line in path.read_text().splitlines()]
    assert len(sizes) == 400
    assert max(sizes) <= 100 * ORDINARY + 2 * len(ROWS[0]["text"])
    assert max(sizes) >= 90 * ORDINARY
    assert sorted(sizes)[200] < 25 * ORDINARY
    assert len({size // ORDINARY for size in sizes}) > 20
