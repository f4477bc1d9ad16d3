"""Samples of the forms that people have, cut: so many rows, in the form and the dialect that they had."""

import csv
import gzip
import io
import json
import sqlite3
import sys
import tarfile
import types
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest

from pytest_trainguard import NotApplicable
from pytest_trainguard.damage import data_files, labels, row_values
from pytest_trainguard.rows import samples, suffixes
from pytest_trainguard.rows.codec import Csv, JsonColumns, JsonLines, form_of
from pytest_trainguard.rows.dialects import find_dialect
from pytest_trainguard.rows.longest import stretch_rows
from pytest_trainguard.rows.references import find_references

MARK = "\ufeff"


@pytest.fixture
def cut(tmp_path):
    """Cut a file that has this content, or that a function wrote, to so many rows; the path of the piece."""

    def cut(name, content, rows=3):
        sample, piece = tmp_path / "sample" / name, tmp_path / f"piece-{rows}"
        sample.parent.mkdir(exist_ok=True)
        piece.mkdir(exist_ok=True)
        if callable(content):
            content(sample)
        else:
            sample.write_bytes(content if isinstance(content, bytes) else content.encode())
        return samples.cut_sample(sample, piece, rows)

    return cut


# --- tables in text


DIALECTS = {
    "semicolons": 'text;label\n"a; ""b""";0\nplain, with commas;1\n"two\nlines";0\nlast;1\n',
    "all quoted": '"text","label"\r\n"a","0"\r\n"b, c","1"\r\n"d","0"\r\n"e","1"\r\n',
    "text quoted, numbers not": '"text";"label"\n"a";0\n"b";1\n"c";0\n"d";1\n',
    "bars": "text|label\na,b|0\nc|1\nd|0\ne|1\n",
    "tabs, quoted": 'text\tlabel\n"a\tb"\t0\nc\t1\nd\t0\ne\t1\n',
    "tabs, no quotes": 'text\tlabel\n"Well\t0\nhe said" so\t1\n5" disks\t0\ne\t1\n',
    "backslashes": 'text,label\n"a \\"b\\", c",0\n"d",1\n"e",0\n"f",1\n',
    "blanks after commas": 'text, label\na, 0\n"b, c", 1\nd, 0\ne, 1\n',
    "a byte order mark": f'{MARK}"te;xt";label\na;0\nb;1\nc;0\nd;1\n',
    "one column": "text\na; b\nc, d\ne\nf\n",
}


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_table_is_cut_where_its_records_end(cut, name, suffix):
    content = DIALECTS[name].encode()
    piece = cut(f"rows{suffix}", content)
    assert content.startswith(piece.read_bytes())
    assert content[len(piece.read_bytes()) :].rstrip() in {
        b"last;1", b'"e","1"', b'"d";1', b"e|1", b"e\t1", b'"f",1', b"e, 1", b"d;1", b"f"
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name in DIALECTS if name != "one column"])
def test_a_table_keeps_its_dialect_where_a_cell_is_changed(tmp_path, name):
    path = tmp_path / "rows.csv"
    path.write_bytes(DIALECTS[name].encode())
    rows = row_values.read_named_rows(path)
    first, label = rows[0]
    assert label == "label"
    assert [row[label] for row in rows] == ["0", "1", "0", "1"]
    changed = row_values.edit_value(path, tmp_path / "out", "", (label,), lambda _: "7")
    before, after = path.read_bytes(), changed.path.read_bytes()
    assert len(before) == len(after)
    assert [(a, b) for a, b in zip(before, after, strict=True) if a != b] == [(ord("0"), ord("7"))]
    text = 'new; "text", \t|'
    changed = row_values.edit_value(path, tmp_path / "out", "", (first,), lambda _: text)
    wanted = [{**row, first: text} if number == 2 else row for number, row in enumerate(rows)]
    if name == "tabs, no quotes":
        wanted[2][first] = text.replace("\t", " ")  # it has no place for one
    assert row_values.read_named_rows(changed.path) == wanted


@pytest.mark.parametrize("name", [name for name in DIALECTS if name != "one column"])
def test_a_column_is_taken_out_of_a_table_and_the_others_stay_as_they_were(name):
    content = DIALECTS[name].encode()
    names = Csv().fields(content)
    left = Csv().drop_column(content, names[-1])
    assert Csv().fields(left) == names[:-1]
    if name == "text quoted, numbers not":
        assert left == b'"text"\n"a"\n"b"\n"c"\n"d"\n'


def test_a_cell_too_many_and_a_cell_alone_are_of_the_same_dialect(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('"text";"label"\n"a";0\n"b";1\n"c";0\n')
    surplus, _, lone = data_files.corrupt_row(path, tmp_path / "out")
    assert surplus.path.read_text().splitlines()[2] == '"b";1;x'
    assert lone.path.read_text().splitlines()[3] == '"c"'


def test_a_table_with_stray_quotes_and_tabs_is_made_longer_in_lines_of_its_own(tmp_path):
    path = tmp_path / "rows.tsv"
    path.write_text('text\tlabel\n"Well now\t0\nhe said" so\t1\n')
    stretch_rows(path, 8, 10)
    lines = path.read_text().splitlines()
    assert len(lines) == 9
    assert all(line.count("\t") == 1 for line in lines)


def test_the_dialect_of_a_long_table_is_told_from_its_beginning(cut):
    text = '"' + "long; " * 20_000 + '"'
    content = "a;b\n" + f"{text};1\n" * 30
    piece = cut("rows.csv", content, 20)
    assert piece.read_text().count("\n") == 21
    assert find_dialect(content, ",").delimiter == ";"
    assert find_dialect("a;b\n1;2;3\n4;5\n", ",").delimiter == ";", "its records are uneven: its names tell"


# --- JSON


def test_columns_of_one_length_are_cut_alike(cut, tmp_path):
    whole = {"text": [f"row {n} of text" for n in range(9)], "label": [n % 2 for n in range(9)], "names": ["a", "b"]}
    piece = cut("rows.json", json.dumps(whole), 6)
    value = json.loads(piece.read_text())
    assert value == {"text": whole["text"][:6], "label": whole["label"][:6], "names": ["a", "b"]}
    assert isinstance(form_of(piece), JsonColumns)
    changed = row_values.edit_value(piece, tmp_path / "out", "put X into {field} in {line}", ("text",), lambda _: "X")
    assert changed.did == "put X into 'text' in a row of rows.json"
    assert json.loads(changed.path.read_text()) == {**value, "text": [*value["text"][:3], "X", *value["text"][4:]]}
    assert changed.line is None
    dropped = data_files.drop_field(piece, tmp_path / "out", "label")
    assert list(json.loads(dropped.path.read_text())) == ["text", "names"]
    empty = data_files.empty_data(piece, tmp_path / "empty")[-1]
    assert json.loads(empty.path.read_text()) == {"text": [], "label": [], "names": ["a", "b"]}
    assert labels.read_labels(piece, "label") == value["label"]
    stretch_rows(piece, 12, 10)
    assert {len(json.loads(piece.read_text())[name]) for name in ("text", "label")} == {12}


def test_a_list_beside_a_list_of_objects_is_a_column_unless_it_is_short(cut):
    rows = [{"x": n} for n in range(20)]
    value = json.loads(cut("rows.json", json.dumps({"rows": rows, "labels": list(range(20))}), 9).read_text())
    assert value == {"rows": rows[:9], "labels": list(range(9))}
    value = json.loads(cut("rows.json", json.dumps({"rows": rows[:2], "tags": ["a", "b"]}), 1).read_text())
    assert value == {"rows": rows[:1], "tags": ["a", "b"]}


def test_a_table_split_into_index_and_data_is_cut(cut):
    whole = {"columns": ["x", "y"], "index": list(range(9)), "data": [[n, n] for n in range(9)]}
    assert json.loads(cut("rows.json", json.dumps(whole)).read_text()) == {
        "columns": ["x", "y"], "index": [0, 1, 2], "data": [[0, 0], [1, 1], [2, 2]]
    }  # fmt: skip


def pictures(images=100, each=5, key="image_id"):
    """Annotations as COCO has them, those of one image one after the other."""
    return {
        "info": {"year": 2026},
        "licenses": [{"id": 1, "name": "free"}, {"id": 2, "name": "other"}],
        "categories": [{"id": n, "name": f"kind {n}"} for n in range(80)],
        "images": [{"id": 1000 + n, "file_name": f"{n}.png", "license": 1 + n % 2} for n in range(images)],
        "annotations": [
            {"id": n, key: 1000 + n // each, "category_id": n % 80, "caption": f"a text {n}"}
            for n in range(images * each)
        ],
    }


@pytest.mark.parametrize("rows", [1, 10, 64])
@pytest.mark.parametrize("key", ["image_id", "image", "img_id"])
def test_annotations_and_the_images_that_they_name_are_cut_together(cut, rows, key):
    whole = pictures(key=key)
    value = json.loads(cut("coco.json", json.dumps(whole), rows).read_text())
    named = [each[key] for each in value["annotations"]]
    assert [image["id"] for image in value["images"]] == named == [1000 + n for n in range(rows)]
    assert {name: value[name] for name in ("info", "licenses", "categories")} == {
        name: whole[name] for name in ("info", "licenses", "categories")
    }


def test_annotations_are_the_rows_that_are_tampered_with(cut, tmp_path):
    piece = cut("coco.json", json.dumps(pictures()), 64)
    assert data_files.field_names(piece) == ["id", "image_id", "category_id", "caption"]
    changed = row_values.edit_value(piece, tmp_path / "out", "", ("caption",), lambda _: "X")
    value = json.loads(changed.path.read_text())
    assert [number for number, row in enumerate(value["annotations"]) if row["caption"] == "X"] == [32]
    where = changed.naming[1]
    for said in ("annotations[32]: bad", "row 32", "entry 33", f"line {changed.line}"):
        assert where.pattern.search(said), said
    assert not where.pattern.search("annotations[30]")


def test_fewer_annotations_than_images_name_images_that_stay(cut):
    whole = pictures(images=100, each=1)
    whole["annotations"] = whole["annotations"][40:70]
    value = json.loads(cut("coco.json", json.dumps(whole), 64).read_text())
    assert len(value["annotations"]) == 30
    assert {each["image_id"] for each in value["annotations"]} <= {image["id"] for image in value["images"]}


def test_a_label_is_no_reference():
    whole = pictures(images=10, each=1)
    for n, annotation in enumerate(whole["annotations"]):
        annotation["label"] = 1000 + n % 2  # as it happens, the number of an image
    found = find_references({name: rows for name, rows in whole.items() if isinstance(rows, list)})
    assert {(each.field, each.target) for each in found if each.table == "annotations"} == {
        ("image_id", "images"), ("category_id", "categories")
    }  # fmt: skip


def test_parts_of_one_whole_are_cut_alike(cut):
    whole = {name: [{"x": n} for n in range(size)] for name, size in (("train", 90), ("validation", 80), ("test", 80))}
    value = json.loads(cut("rows.json", json.dumps(whole), 5).read_text())
    assert {name: len(rows) for name, rows in value.items()} == {"train": 5, "validation": 5, "test": 5}


def test_lists_that_have_nothing_to_do_with_each_other_ask_for_make_data(cut):
    whole = {"questions": [{"q": n} for n in range(90)], "passages": [{"p": n} for n in range(300)]}
    with pytest.raises(ValueError, match=r"several lists \(passages, questions\).*override make_data"):
        cut("rows.json", json.dumps(whole), 64)


def test_lines_of_json_in_a_file_that_is_called_json(cut, tmp_path):
    content = "".join(json.dumps({"text": f"row {n}", "x": [n, n]}) + "\n" for n in range(9))
    piece = cut("rows.json", content)
    assert piece.read_text() == "".join(content.splitlines(keepends=True)[:3])
    assert isinstance(form_of(piece), JsonLines)
    changed = row_values.edit_value(piece, tmp_path / "out", "", ("text",), lambda _: "X")
    assert json.loads(changed.path.read_text().splitlines()[changed.line - 1])["text"] == "X"


@pytest.mark.parametrize("name", ["deep.json", "deep.jsonl"])
def test_json_that_is_nested_too_deep_names_its_file(cut, tmp_path, name):
    deep = '{"a": ' * 5000 + "1" + "}" * 5000
    with pytest.raises(ValueError, match=rf"{name}: cannot be read: .*nested too deep"):
        cut(name, f"[{deep}]" if name.endswith("json") else deep + "\n")
    piece = cut(
        name, f"[{deep[: 6 * 150]}1{'}' * 150}]" if name.endswith("json") else deep[: 6 * 150] + "1" + "}" * 150
    )
    with pytest.raises(NotApplicable, match="nested over 100 levels deep"):
        row_values.read_named_rows(piece)


def test_an_object_without_a_list_asks_for_make_data(cut):
    with pytest.raises(ValueError, match=r"there is no list in its object: override make_data"):
        cut("rows.json", '{"0": {"text": "a"}, "1": {"text": "b"}}')


# --- packed


@pytest.mark.parametrize("packing", ["gz", "bz2", "xz", "zst"])
def test_packed_rows_are_cut_tampered_with_and_packed_again(cut, tmp_path, packing):
    from pytest_trainguard.rows.codec import read_content, write_content

    content = "".join(json.dumps({"text": f"row {n} of text"}) + "\n" for n in range(9))
    piece = cut(f"rows.jsonl.{packing}", lambda path: write_content(path, content.encode()), 4)
    assert piece.read_bytes()[:4] != content.encode()[:4]
    assert read_content(piece).decode() == "".join(content.splitlines(keepends=True)[:4])
    changed = row_values.edit_value(piece, tmp_path / "out", "", ("text",), lambda _: "X")
    assert json.loads(read_content(changed.path).splitlines()[2]) == {"text": "X"}
    assert changed.path.name == f"rows.jsonl.{packing}"
    with pytest.raises(NotApplicable, match="its data is packed"):
        data_files.grow_file(piece, tmp_path / "out", [{"text": "a"}], 1000)


def test_a_packed_file_has_two_suffixes():
    names = ("rows.jsonl", "rows.jsonl.gz", "rows.v2.CSV.ZST", "rows.gz", "rows")
    assert [suffixes.whole(Path(name)) for name in names] == [".jsonl", ".jsonl.gz", ".CSV.ZST", ".gz", ""]
    assert [suffixes.inside(Path(name)) for name in names] == [".jsonl", ".jsonl", ".csv", "", ""]


def test_a_packed_table_keeps_its_dialect(cut):
    piece = cut("rows.csv.gz", lambda path: path.write_bytes(gzip.compress(b'"a";"b"\r\n"1";2\r\n"3";4\r\n')), 1)
    assert gzip.decompress(piece.read_bytes()) == b'"a";"b"\r\n"1";2\r\n'


def test_what_is_not_packed_as_it_says_is_told(cut):
    for packing in ("gz", "bz2", "xz", "zst"):
        with pytest.raises(ValueError, match=rf"rows\.jsonl\.{packing}: cannot be read"):
            cut(f"rows.jsonl.{packing}", b'{"a": 1}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl\.gz: cannot be read"):
        cut("rows.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 99)[:-20], 99)


# --- what is cut, and nothing else


def test_row_groups_of_parquet_are_no_limit(cut):
    table = pyarrow.table({"text": [f"row {n}" for n in range(100)]})
    piece = cut("rows.parquet", lambda path: parquet.write_table(table, path, row_group_size=10), 64)
    assert parquet.read_table(piece).to_pylist() == table.to_pylist()[:64]


def test_lines_of_text(cut):
    piece = cut("rows.txt", "one\n\ntwo\nthree\nfour\n")
    assert piece.read_text() == "one\n\ntwo\nthree\n"
    endless = cut("one-line.txt", "é" * 200_000, 2).read_bytes()
    assert 100_000 < len(endless) <= 2 << 16
    assert set(endless.decode()) == {"é"}


def test_arrays(cut):
    piece = cut("x.npy", lambda path: np.save(path, np.arange(40).reshape(20, 2)))
    assert np.load(piece, allow_pickle=False).tolist() == [[0, 1], [2, 3], [4, 5]]
    stream = cut("tokens.npy", lambda path: np.save(path, np.arange(10_000, dtype="uint16")), 2)
    assert np.load(stream).shape == (2048,)
    with pytest.raises(ValueError, match=r"objects\.npy: cannot be read: .*Python objects"):
        cut("objects.npy", lambda path: np.save(path, np.array([{"a": 1}]), allow_pickle=True))


def test_an_array_of_labels_is_cut_like_the_array_beside_it(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "piece").mkdir()
    np.save(tmp_path / "data" / "x.npy", np.zeros((20, 4)))
    np.save(tmp_path / "data" / "y.npy", np.arange(20))
    piece = samples.cut_sample(tmp_path / "data", tmp_path / "piece", 3)
    assert np.load(piece / "x.npy").shape == (3, 4)
    assert np.load(piece / "y.npy").tolist() == [0, 1, 2]


def test_raw_tokens(cut):
    piece = cut("train.bin", bytes(range(256)) * 100, 2)
    assert piece.stat().st_size == 8192
    assert piece.stat().st_size % 8 == 0
    assert cut("short.bin", b"1234567890", 2).read_bytes() == b"12345678"
    with pytest.raises(ValueError, match=r"model\.bin: was saved by torch.*override make_data"):
        cut("model.bin", b"PK\x03\x04 weights")
    with pytest.raises(ValueError, match=r"counted\.bin: .*override make_data"):
        cut("counted.bin", (20240520).to_bytes(4, "little") + bytes(2000))


def shard(path, keys=9):
    with tarfile.open(path, "w") as out:
        for n in range(keys):
            for suffix, content in (("txt", b"a text"), ("seg.png", bytes([n]))):
                member = tarfile.TarInfo(f"part/{n:04}.{suffix}")
                member.size = len(content)
                out.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("name", ["shard-0.tar", "shard-0.tar.gz"])
def test_a_shard_is_cut_between_examples(cut, name):
    def write(path):
        shard(path)
        if name.endswith("gz"):
            path.write_bytes(gzip.compress(path.read_bytes()))

    with tarfile.open(cut(name, write)) as piece:
        assert piece.getnames() == [f"part/000{n}.{suffix}" for n in range(3) for suffix in ("txt", "seg.png")]
        assert piece.extractfile("part/0002.seg.png").read() == b"\x02"


def test_a_database_keeps_what_its_rows_refer_to(cut):
    def write(path):
        with closing(sqlite3.connect(path)) as database:
            database.executescript(
                'CREATE TABLE image (id INTEGER PRIMARY KEY, "the name" TEXT);'
                "CREATE TABLE label (image INTEGER REFERENCES image, class INTEGER);"
                "CREATE TABLE known (word TEXT PRIMARY KEY) WITHOUT ROWID;"
            )
            database.executemany("INSERT INTO image VALUES (?, ?)", [(n, f"{n}.png") for n in range(50)])
            database.executemany("INSERT INTO label VALUES (?, ?)", [(40 + n % 10, n) for n in range(50)])
            database.executemany("INSERT INTO known VALUES (?)", [(str(n),) for n in range(9)])
            database.commit()

    with closing(sqlite3.connect(cut("rows.sqlite", write))) as piece:
        assert piece.execute("SELECT * FROM label").fetchall() == [(40, 0), (41, 1), (42, 2)]
        assert [one for (one,) in piece.execute("SELECT id FROM image")] == [0, 1, 2, 40, 41, 42]
        assert piece.execute("SELECT count(*) FROM known").fetchone() == (9,)
    with pytest.raises(ValueError, match=r"no\.db: cannot be read"):
        cut("no.db", b"no database at all, but long enough to be looked at" * 99)


@pytest.mark.parametrize(
    ("name", "content"),
    [("rows.txt", b"a\nb\n"), ("rows.bin", bytes(64)), ("rows.tar", b"x"), ("rows.npy", b"x"), ("rows.db", b"x")],
)
def test_what_is_only_cut_can_be_emptied_and_is_else_not_applicable(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    (empty,) = data_files.empty_data(path, tmp_path / "out")
    assert empty.path.read_bytes() == b""
    for call in (data_files.corrupt_row, lambda path, _: data_files.field_names(path)):
        with pytest.raises(NotApplicable, match=r"rows are not looked into.*give it a sample in JSON, CSV or Par"):
            call(path, tmp_path / "out")
    with pytest.raises(NotApplicable, match="labels can be exchanged in"):
        labels.read_labels(path, "label")
    with pytest.raises(ValueError, match="override make_longest"):
        stretch_rows(path, 4, 10)
    assert data_files.counts_rows(path) == (name == "rows.tar")


# --- folders


def write_files(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def listed(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def test_pictures_are_cut_by_class(folder, tmp_path):
    write_files(folder, *(f"{part}/{kind}/{n}-{kind}.JPG" for part in ("train", "val") for kind in "abc"
                          for n in range(9)), "README.md")  # fmt: skip
    piece = samples.cut_sample(folder, tmp_path / "piece", 4)
    kept = ["a/0-a.JPG", "a/1-a.JPG", "b/0-b.JPG", "c/0-c.JPG"]
    assert listed(piece) == ["README.md", *(f"{part}/{one}" for part in ("train", "val") for one in kept)]
    assert listed(samples.cut_sample(folder, tmp_path / "one", 1)) == ["README.md", "train/a/0-a.JPG", "val/a/0-a.JPG"]
    (bare,) = data_files.empty_data(piece, tmp_path / "out")
    assert not any(bare.path.iterdir())
    with pytest.raises(NotApplicable, match="holds no file that can be tampered with"):
        data_files.field_names(piece)


def test_pictures_stay_with_what_is_said_of_them(folder, tmp_path):
    write_files(folder, *(f"pictures/{n}-p.png" for n in range(9)), *(f"masks/{n}-p.png" for n in range(9)),
                *(f"pictures/{n}-p.txt" for n in range(9)))  # fmt: skip
    assert listed(samples.cut_sample(folder, tmp_path / "piece", 2)) == [
        "masks/0-p.png", "masks/1-p.png",
        "pictures/0-p.png", "pictures/0-p.txt", "pictures/1-p.png", "pictures/1-p.txt",
    ]  # fmt: skip


@pytest.mark.parametrize("field", ["pictures/{}.png", "{}.png", "p-{}"])
def test_pictures_that_rows_name_are_kept(folder, tmp_path, field):
    write_files(folder, *(f"pictures/{n}.png" for n in range(9)), *(f"pictures/p-{n}.png" for n in range(9)))
    (folder / "metadata.jsonl").write_text("".join(json.dumps({"file": field.format(8 - n)}) + "\n" for n in range(9)))
    piece = samples.cut_sample(folder, tmp_path / "piece", 2)
    stem = "p-{}" if field.startswith("p-") else "{}"
    assert listed(piece) == ["metadata.jsonl", *(f"pictures/{stem.format(n)}.png" for n in (7, 8))]
    assert data_files.field_names(piece) == ["file"]


def test_pictures_stay_with_the_annotations_that_name_them(folder, tmp_path):
    whole = pictures(images=100, each=3)
    write_files(folder, *(f"train/{image['file_name']}" for image in whole["images"]))
    (folder / "instances.json").write_text(json.dumps(whole))
    piece = samples.cut_sample(folder, tmp_path / "piece", 3)
    assert listed(piece) == ["instances.json", "train/0.png", "train/1.png", "train/2.png"]
    assert data_files.field_names(piece)[1] == "image_id"


def test_pictures_that_no_row_names_ask_for_make_data(folder, tmp_path):
    write_files(folder, "pictures/a.png", "pictures/b.png")
    (folder / "rows.csv").write_text("x,y\n1,2\n")
    with pytest.raises(ValueError, match=r"which of its files belongs to which row.*override make_data"):
        samples.cut_sample(folder, tmp_path / "piece", 1)


def test_a_folder_of_parts_is_cut_part_by_part_and_what_is_read_whole_stays_whole(folder, tmp_path):
    (folder / "train").mkdir()
    (folder / "train" / "part-0.jsonl").write_text('{"x": 1}\n' * 9)
    (folder / "train.bin").write_bytes(bytes(100_000))
    (folder / "meta.pkl").write_bytes(b"not read")
    (folder / "vocab.txt").write_text("word\n" * 900)
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": [{"id": n} for n in range(300)]}))
    (folder / "split.json").write_text('{"ratio": 0.1}')
    (folder / ".cache").mkdir()
    (folder / ".cache" / "old.jsonl").write_text("no JSON at all")
    piece = samples.cut_sample(folder, tmp_path / "piece", 2)
    assert (piece / "train" / "part-0.jsonl").read_text() == '{"x": 1}\n' * 2
    assert (piece / "train.bin").stat().st_size == 8192
    for name in ("meta.pkl", "vocab.txt", "tokenizer.json", "split.json"):
        assert (piece / name).read_bytes() == (folder / name).read_bytes()
    assert not (piece / ".cache").exists()


def test_a_folder_of_text_is_cut_file_by_file(folder, tmp_path):
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text("line\n" * 9)
    piece = samples.cut_sample(folder, tmp_path / "piece", 2)
    assert {path.read_text() for path in piece.iterdir()} == {"line\nline\n"}


class SavedRows(list):
    """As much of a data set of the `datasets` library as is asked of it."""

    def select(self, numbers):
        return SavedRows(self[number] for number in numbers)

    def save_to_disk(self, path):
        write_files(type(self).folder / path.rpartition("/")[2], f"{len(self)} rows")


def test_what_the_datasets_library_saved_is_cut_by_it(folder, tmp_path, monkeypatch):
    write_files(folder, "dataset_info.json", "state.json", "data-00000-of-00001.arrow")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"was saved by datasets, which is not installed: override make_data"):
        samples.cut_sample(folder, tmp_path / "piece", 2)
    SavedRows.folder = tmp_path / "piece"
    library = types.SimpleNamespace(load_from_disk=lambda path: SavedRows(range(9)))
    monkeypatch.setitem(sys.modules, "datasets", library)
    assert listed(samples.cut_sample(folder, tmp_path / "piece", 2)) == ["2 rows"]
    with pytest.raises(NotApplicable, match="holds no file that can be tampered with"):
        data_files.field_names(folder)


def test_the_datasets_library_itself(folder, tmp_path):
    datasets = pytest.importorskip("datasets")
    part = datasets.Dataset.from_dict({"x": list(range(9))})
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(str(folder))
    whole = datasets.load_from_disk(str(samples.cut_sample(folder, tmp_path / "piece", 2)))
    assert {name: each["x"][:] for name, each in whole.items()} == {"train": [0, 1], "test": [0, 1]}


def test_semicolons_are_read_back_by_a_strict_reader(cut):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=";")
    writer.writerow(["text", "label"])
    writer.writerows([f'one\ntwo; "quoted" {n}', n % 2] for n in range(100))
    with cut("semi.csv", out.getvalue(), 64).open(newline="") as lines:
        rows = list(csv.reader(lines, delimiter=";", strict=True))
    assert len(rows) == 65
    assert rows[64] == ['one\ntwo; "quoted" 63', "1"]


def write_splits(folder, **rows):
    folder.mkdir(exist_ok=True)
    for name, many in rows.items():
        lines = [json.dumps({"text": f"a text {n}", "label": n % 2}) + "\n" for n in range(many)]
        (folder / f"{name}.json").write_text("".join(lines))
    return folder


def read_lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_rows_of_every_file_in_a_folder_are_made_longer(tmp_path):
    folder = write_splits(tmp_path / "data", train=4, validation=3)
    (folder / "numbers.csv").write_text("a,b\n1,2\n")
    assert stretch_rows(folder, 8, 10) == folder
    for name in ("train", "validation"):
        rows = read_lines(folder / f"{name}.json")
        assert len(rows) == 8
        assert sum(len(row["text"]) >= 120 for row in rows) == 4
    assert (folder / "numbers.csv").read_text() == "a,b\n1,2\n"
    (tmp_path / "numbers").mkdir()
    (tmp_path / "numbers/train.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"train\.csv: holds no text to make longer: override make_longest"):
        stretch_rows(tmp_path / "numbers", 8, 10)


def test_labels_in_a_folder_are_those_of_its_parts(tmp_path):
    folder = write_splits(tmp_path / "data", train=4, validation=3, test=2)
    assert labels.read_labels(folder, "label") == [0, 1, 0, 1]
    made = labels.write_split_labels(folder, tmp_path / "out", "label", 1, (0, 1))
    assert [row["label"] for row in read_lines(made / "train.json")] == [1, 1, 1, 1]
    assert [row["label"] for row in read_lines(made / "validation.json")] == [0, 1, 0]
    assert (made / "test.json").read_text() == (folder / "test.json").read_text()
    (folder / "validation.json").unlink()
    with pytest.raises(NotApplicable, match="which file in it is trained and which validated on"):
        labels.read_labels(folder, "label")


def test_a_corpus_in_pieces_is_cut_to_so_many_rows_in_all(tmp_path):
    sample = tmp_path / "corpus"
    sample.mkdir()
    for number in range(5):
        (sample / f"book{number}.txt").write_text("".join(f"line {number} {line}\n" for line in range(9)))

    def rows_of(folder):
        return {path.name: len(path.read_text().splitlines()) for path in sorted(folder.iterdir())}

    piece = samples.cut_sample(sample, tmp_path / "seven", 7)
    assert rows_of(piece) == {"book0.txt": 2, "book1.txt": 2, "book2.txt": 1, "book3.txt": 1, "book4.txt": 1}
    assert rows_of(samples.cut_sample(sample, tmp_path / "one", 1)) == {"book0.txt": 1}


def test_files_that_belong_to_each_other_are_cut_alike(tmp_path):
    """A text and its translation; what is for training and what for validation."""
    for names in (("source.txt", "target.txt"), ("train-1.txt", "train-2.txt", "valid-1.txt", "valid-2.txt")):
        sample = tmp_path / names[0] / "data"
        sample.mkdir(parents=True)
        for name in names:
            (sample / name).write_text("a line\n" * 9)
        piece = samples.cut_sample(sample, sample.parent / "piece", 4)
        assert {path.name: len(path.read_text().splitlines()) for path in piece.iterdir()} == dict.fromkeys(names, 4)
