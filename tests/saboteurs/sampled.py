"""Programs whose data is cut from a sample of theirs, in the forms that people keep rows in beside JSONL."""

import csv
import gzip
import json
import tempfile
import zlib
from pathlib import Path

from pytest_trainguard import Trainer
from tests.saboteurs.sound import Reject, Sound
from tests.saboteurs.variants import ReadsCsv


class FromSample:
    """Its rows are the first of a larger file, as the harness cuts it."""

    WHOLE = 200  # rows

    def make_data(self, folder, rows, seed):
        with tempfile.TemporaryDirectory() as whole:
            self.sample = self.write_whole(super().make_data(Path(whole), self.WHOLE, seed))
            return Trainer.make_data(self, folder, rows, seed)

    def write_whole(self, path):
        """The rows of a file in the program's own form, and nothing else in its folder."""
        return path


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class ReadsSemicolons(FromSample, ReadsCsv):
    """A table as a spreadsheet of many countries writes it: semicolons, every cell in quotes, line ends of Windows."""

    only = (1, 4, 5, 7, 8)
    DIALECT = {"delimiter": ";", "quoting": csv.QUOTE_ALL, "strict": True}
    SOURCE = 'a "web page"; of\ntwo lines'


class SkipsUnevenRecords(ReadsSemicolons):
    """Reads on past a record with a cell too many or too few."""

    only = ()
    case = "malformed-row"
    grade = "misleads"
    says = "it trained instead of rejecting that"

    def read_rows(self, path):
        with path.open(newline="", encoding="utf-8-sig") as lines:
            names, *records = csv.reader(lines, delimiter=";") or [[]]
        whole = [dict(zip(names, cells, strict=True)) for cells in records if len(cells) == len(names)]
        return [self.row(cells) for cells in whole]


class LeavesSpareCellsOut(ReadsCsv):
    """`csv.DictReader` puts what has no name under None, where nobody looks."""

    case = "malformed-row"
    grade = "unclear"
    says = "it trained on the right values of that line, and says nothing of the one too many"

    def read_rows(self, path):
        with self.open_data(path) as lines:
            table = csv.DictReader((line.decode() for line in lines), strict=True)
            try:
                return [self.row(cells) for cells in table]
            except (TypeError, ValueError, csv.Error) as error:
                raise Reject(f"{path}, line {table.line_num}: {error}") from error


class ReadsWholeFile(FromSample, Sound):
    """Its file is one value of JSON; of rows it knows the count, and no lines."""

    only = (1, 2, 4, 5, 6, 7, 8, 9)
    NAMES = ("x", "text", "y")

    def write_whole(self, path):
        rows = rows_of(path)
        path.unlink()
        whole = path.with_name("rows.json")
        whole.write_text(json.dumps(self.as_value(rows)))
        return whole

    def as_value(self, rows):
        """An object of columns."""
        return {"made": "by hand", **{name: [row[name] for row in rows] for name in self.NAMES}, "classes": ["-", "+"]}

    def read_rows(self, path):
        if path.suffix != ".json":
            raise Reject(f"{path}: not a .json file")
        try:
            rows = self.rows_in(json.loads(path.read_bytes().decode("utf-8-sig")), path)
        except (OSError, ValueError, RecursionError) as error:
            raise Reject(f"{path}: {error}") from error
        if not rows:
            raise Reject(f"{path}: no rows to train on")
        return rows

    def rows_in(self, value, path):
        for name in self.NAMES:
            if not isinstance(value, dict) or not isinstance(value.get(name), list):
                raise Reject(f"{path}: column {name!r} is missing")
        cells = zip(*(value[name] for name in self.NAMES), strict=True)
        rows = [dict(zip(self.NAMES, row, strict=True)) for row in cells]
        return [self.check_row(row, path, number) for number, row in enumerate(rows, 1)]


class ReadsAnnotations(ReadsWholeFile):
    """Several lists in one file: annotations name the picture that they are of, three to a picture."""

    only = (2, 4, 5, 7, 8)

    def as_value(self, rows):
        pictures = [{"id": 100 + n, "x": row["x"], "text": row["text"]} for n, row in enumerate(rows)]
        annotations = [{"picture_id": 100 + n, "y": row["y"]} for n, row in enumerate(rows) for _ in range(3)]
        licences = [{"id": n, "name": f"licence {n}"} for n in range(3)]
        return {"info": {"year": 2026}, "licences": licences, "pictures": pictures, "annotations": annotations}

    def rows_in(self, value, path):
        for name in ("pictures", "annotations"):
            if not isinstance(value, dict) or not isinstance(value.get(name), list):
                raise Reject(f"{path}: {name!r} is missing")
        pictures = {picture["id"]: picture for picture in value["pictures"]}
        return [
            self.check_row(self.row(annotation, pictures, f"{path}: annotations[{number}]"), path, number + 1)
            for number, annotation in enumerate(value["annotations"])
            if self.is_wanted(annotation, pictures)
        ]

    def is_wanted(self, annotation, pictures):
        return True

    def row(self, annotation, pictures, where):
        for name in ("picture_id", "y"):
            if name not in annotation:
                raise Reject(f"{where}: field {name!r} is missing")
        named = annotation["picture_id"]
        if type(named) is not int or named not in pictures:
            raise Reject(f"{where}: field 'picture_id' is {named!r}, which is no picture's id")
        return {**pictures[named], "y": annotation["y"]}


class SkipsUnknownPictures(ReadsAnnotations):
    """Leaves out the annotations of pictures that it does not know."""

    only = ()
    case = "wrong-type"
    grade = "misleads"
    says = "without reporting it"

    def is_wanted(self, annotation, pictures):
        return str(annotation.get("picture_id")) in map(str, pictures)


class ReadsPacked(FromSample, Sound):
    """JSONL, packed by gzip."""

    only = (1, 4, 5, 9, "special-characters")

    def write_whole(self, path):
        packed = path.with_name("rows.jsonl.gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
        return packed

    def read_rows(self, path):
        if not path.name.endswith(".jsonl.gz"):
            raise Reject(f"{path}: not a .jsonl.gz file")
        try:
            lines = gzip.decompress(path.read_bytes()).removeprefix(b"\xef\xbb\xbf").split(b"\n")
        except (OSError, EOFError, zlib.error) as error:
            raise Reject(f"{path}: {error}") from error
        *whole, rest = enumerate(lines, 1)
        if rest[1]:
            raise Reject(f"{path}, line {rest[0]}: the last line is cut off (no newline)")
        rows = [
            self.check_row(self.parse(line + b"\n", path, number), path, number)
            for number, line in whole
            if line.strip()
        ]
        if not rows:
            raise Reject(f"{path}: no rows to train on")
        return rows


class ReadsText(FromSample, Sound):
    """Plain text, of which no line is a row: numbers, a label and words stand wherever there is white space."""

    only = (1, 2, 4, 5, 7, 8, 9)
    exempt = (4, 5, 7, 8, 9)

    def write_whole(self, path):
        text = path.with_name("rows.txt")
        text.write_text("".join(f"{' '.join(map(str, row['x']))} {row['y']}\n" for row in rows_of(path)))
        path.unlink()
        return text

    def read_rows(self, path):
        try:
            words = path.read_text(encoding="utf-8-sig").split()
        except (OSError, ValueError) as error:
            raise Reject(f"{path}: {error}") from error
        if len(words) < 5:
            raise Reject(f"{path}: no rows to train on")
        return [
            {"x": [float(word) for word in words[place : place + 4]], "y": int(words[place + 4])}
            for place in range(0, len(words) - 4, 5)
        ]
