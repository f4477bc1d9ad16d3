"""Broken data, in every form that data comes in: what is said to be broken is, and nothing else."""

import argparse
import csv
import json
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet as parquet
import pytest

from pytest_trainguard import NotApplicable
from pytest_trainguard.casework import damaged_checkpoints
from pytest_trainguard.damage import checkpoints, data_files, row_values, weights

ROWS = [{"text": f"row {n}", "label": n % 2} for n in range(6)]


def write(folder, kind):
    """ROWS in one of the forms."""
    path = folder / f"train.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif kind == "json":
        path.write_text(json.dumps({"version": 1, "rows": ROWS}))
    elif kind == "csv":
        with path.open("w", newline="") as out:
            writer = csv.DictWriter(out, ["text", "label"])
            writer.writeheader()
            writer.writerows(ROWS)
    elif kind == "parquet":
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return path


def read(path):
    """The rows of a file, read as strictly as a good program reads it."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    if path.suffix == ".json":
        return json.loads(path.read_text())["rows"]
    if path.suffix == ".csv":
        with path.open(newline="") as lines:
            return list(csv.DictReader(lines))
    return parquet.read_table(path).to_pylist()


KINDS = ["jsonl", "json", "csv", "parquet"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_data_itself_is_left_alone(tmp_path, kind):
    path = write(tmp_path, kind)
    before = path.read_bytes()
    data_files.empty_data(path, tmp_path / "a")
    data_files.corrupt_row(path, tmp_path / "b")
    data_files.drop_field(path, tmp_path / "c", "label")
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_left_out(tmp_path, kind):
    path = write(tmp_path, kind)
    left = data_files.drop_rows(path, tmp_path / "out", range(0, len(ROWS), 2))
    assert read(left.path) == read(path)[1::2]


@pytest.mark.parametrize("kind", KINDS)
def test_empty_has_no_rows_and_keeps_its_name(tmp_path, kind):
    for variant in data_files.empty_data(write(tmp_path, kind), tmp_path / "out"):
        assert variant.path.name == f"train.{kind}"
        try:
            rows = read(variant.path)
        except (ValueError, pyarrow.ArrowInvalid):
            rows = []
        assert rows == [], variant.did


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_malformed_cannot_be_read(tmp_path, kind):
    variants = data_files.corrupt_row(write(tmp_path, kind), tmp_path / "out")
    assert len(variants) >= 2
    for variant in variants:
        with pytest.raises((ValueError, OSError)):
            read(variant.path)


def test_malformed_names_the_line_that_is_broken(tmp_path):
    for variant in data_files.corrupt_row(write(tmp_path, "jsonl"), tmp_path / "out"):
        lines = variant.path.read_bytes().split(b"\n")
        with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):
            json.loads(lines[variant.line - 1])
        others = [line for number, line in enumerate(lines, 1) if number != variant.line and line.strip()]
        assert all(json.loads(line) for line in others), variant.did


@pytest.mark.parametrize("kind", KINDS)
def test_fields_are_those_of_every_row(tmp_path, kind):
    assert data_files.field_names(write(tmp_path, kind)) == ["text", "label"]


def test_a_field_that_only_some_rows_have_is_no_field_of_every_row(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"text": "a", "label": 0}\n{"text": "b", "label": 1, "note": "x"}\n')
    assert data_files.field_names(path) == ["text", "label"]


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_without_takes_it_out_of_the_row_that_it_names(tmp_path, kind):
    variant = data_files.drop_field(write(tmp_path, kind), tmp_path / "out", "label")
    lacking = [row for row in read(variant.path) if "label" not in row]
    assert len(lacking) == 1
    assert lacking[0]["text"] in variant.path.read_text().splitlines()[variant.line - 1]


@pytest.mark.parametrize("kind", KINDS)
def test_without_everywhere_leaves_it_in_no_row(tmp_path, kind):
    variant = data_files.drop_field(write(tmp_path, kind), tmp_path / "out", "label", everywhere=True)
    rows = read(variant.path)
    assert len(rows) == len(ROWS)
    assert all("label" not in row and "text" in row for row in rows)


def test_a_folder_is_copied_with_one_file_changed(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder, "jsonl")
    (folder / "notes.txt").write_text("kept")
    variant = data_files.drop_field(folder, tmp_path / "out", "label")
    assert variant.path.is_dir()
    assert variant.file.parent == variant.path
    assert (variant.path / "notes.txt").read_text() == "kept"


def test_tensors_have_no_fields(tmp_path):
    path = tmp_path / "rows.pt"
    path.write_bytes(b"PK\x03\x04 and so on")
    assert len(data_files.corrupt_row(path, tmp_path / "out")) == 2
    with pytest.raises(NotApplicable, match="no named fields"):
        data_files.field_names(path)


def test_an_unknown_form_says_which_are_known(tmp_path):
    path = tmp_path / "rows.xyz"
    path.write_text("rows")
    with pytest.raises(NotApplicable, match="JSONL"):
        data_files.corrupt_row(path, tmp_path / "out")


@pytest.mark.parametrize("kind", KINDS)
def test_one_value_is_edited_and_its_line_told(tmp_path, kind):
    data = write(tmp_path, kind)
    made = row_values.edit_value(
        data, tmp_path / "out", "put X into {field} in {line}", ("text",), lambda old: f"X {old}"
    )
    texts = [row["text"] for row in read(made.path)]
    assert texts == ["row 0", "row 1", "row 2", "X row 3", "row 4", "row 5"]
    where = {"jsonl": "line 4", "json": "line 5", "csv": "line 5", "parquet": "a row"}[kind]
    assert made.did == f"put X into 'text' in {where} of train.{kind}"
    assert made.field == "text"
    if made.line:
        assert "X row 3" in made.path.read_text().splitlines()[made.line - 1]


def test_a_csv_of_several_lines_a_row_keeps_its_other_rows(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text('a,b\n1,"x\ny"\n2,"p\nq"\n3,z\n')
    made = row_values.edit_value(path, tmp_path / "out", "", ("a",), lambda _: "7")
    assert read(made.path) == [{"a": "1", "b": "x\ny"}, {"a": "7", "b": "p\nq"}, {"a": "3", "b": "z"}]
    assert (made.line, made.also) == (4, (5, 3))


def test_a_value_that_no_parquet_column_holds_is_not_applicable(tmp_path):
    with pytest.raises(NotApplicable, match="no place for such a value"):
        row_values.edit_value(write(tmp_path, "parquet"), tmp_path / "out", "", ("label",), lambda _: {"a": 1})


def chats(folder):
    path = folder / "chats.jsonl"
    row = {"messages": [{"role": "user", "content": "hello there"}, {"role": "bot", "content": "hi"}], "n": 1}
    path.write_text("".join(json.dumps({**row, "n": n}) + "\n" for n in range(4)))
    return path


def test_places_in_lists_of_objects(tmp_path):
    path = chats(tmp_path)
    rows = row_values.read_named_rows(path)
    assert row_values.common_places(rows) == [
        ("messages",),
        ("messages", 0, "role"),
        ("messages", 0, "content"),
        ("n",),
    ]
    assert row_values.text_places(rows)[0] == ("messages", 0, "content")
    assert row_values.format_place(("messages", 0, "content")) == "messages[0].content"
    assert row_values.field_of_place(("messages", 0)) == "messages"
    gone = row_values.read_named_rows(row_values.drop_value(path, tmp_path / "out", ("messages", 0, "role")).path)
    assert all("role" not in message for row in gone for message in row["messages"])


def test_a_byte_order_mark_and_escapes_change_no_row(tmp_path):
    path = chats(tmp_path)
    path.write_text(path.read_text().replace("hello", "h\N{GRINNING FACE}llo"))
    (marked,) = data_files.add_byte_order_mark(path, tmp_path / "out")
    (escaped,) = data_files.escape_text(path, tmp_path / "out")
    assert marked.path.read_text("utf-8-sig") == path.read_text("utf-8")
    assert escaped.path.read_bytes().isascii()
    assert row_values.read_named_rows(escaped.path) == row_values.read_named_rows(path)
    assert not data_files.add_byte_order_mark(write(tmp_path, "parquet"), tmp_path / "out")


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_grown_data_has_its_own_rows_first(tmp_path, kind):
    data = write(tmp_path, kind)
    new = [{**row, "text": "long " * 50} for row in row_values.read_named_rows(data)]
    made = data_files.grow_file(data, tmp_path / "out", new, 20_000)
    rows = read(made.path)
    assert [row["text"] for row in rows[:6]] == [row["text"] for row in ROWS]
    assert {row["text"] for row in rows[6:]} == {"long " * 50}
    assert 20_000 <= made.path.stat().st_size < 23_000


@pytest.mark.parametrize("kind", ["json", "pt"])
def test_entries_of_a_checkpoint_are_found_put_and_dropped(tmp_path, kind):
    import torch

    file = tmp_path / f"state.{kind}"
    content = {"step": 6, "epoch": True, "name": "x"}
    file.write_text(json.dumps(content)) if kind == "json" else torch.save(content, file)
    assert checkpoints.find_entries([str(file)], ["step", "epoch"]) == {str(file): {"step": 6}}
    checkpoints.set_entry(str(file), "step", 5, str(tmp_path))
    assert checkpoints.find_entries([str(file)], ["step"]) == {str(file): {"step": 5}}
    checkpoints.drop_entry(str(file), "step", str(tmp_path))
    assert checkpoints.find_entries([str(file)], ["step"]) == {}


def test_a_checkpoint_with_classes_of_its_own_is_read_and_not_changed(tmp_path):
    import torch

    file = tmp_path / "ckpt.pt"
    torch.save({"args": argparse.Namespace(lr=0.1), "step": 6}, file)
    assert checkpoints.read_step_count(file) == 6
    assert checkpoints.find_entries([str(file)], ["step"]) == {}
    assert checkpoints.negate_step_counts([str(file)], str(tmp_path)) == {}
    assert checkpoints.own_classes([str(file)]) == {str(file): ["argparse.Namespace"]}
    asked = SimpleNamespace(call=lambda function, *args: function(*args))
    guard = SimpleNamespace(subject=SimpleNamespace(server=asked))
    told = str(damaged_checkpoints.not_to_be_changed(guard, [file], "no step count"))
    assert told.startswith("ckpt.pt holds objects of classes (argparse.Namespace)")
    torch.save({"name": "x"}, file)
    assert str(damaged_checkpoints.not_to_be_changed(guard, [file], "no step count")) == "no step count"


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_flipped_bits_are_in_the_weights_and_nowhere_else(tmp_path, kind):
    import torch
    from safetensors.torch import load_file, save_file

    file = tmp_path / f"weights.{kind}"
    tensors = {"a": torch.full((40,), 0.02), "b": torch.full((3,), 0.5)}
    save_file(tensors, file) if kind == "safetensors" else torch.save(tensors, file)
    size = file.stat().st_size
    assert weights.flip_bits(str(file)) == "a"
    after = load_file(file) if kind == "safetensors" else torch.load(file, weights_only=True)
    assert file.stat().st_size == size
    assert int((after["a"] > 1e30).sum()) == 16
    assert torch.equal(after["b"], tensors["b"])
    (tmp_path / "none.pt").write_bytes(b"no tensors")
    assert weights.flip_bits(str(tmp_path / "none.pt")) == ""
