"""Cases 1 to 10."""

import json
import random
import sys

import torch

from tests.saboteurs.sound import Failure, Reject, Rows, Sound


class NothingToDo(Sound):
    """Takes no rows for a job that is done."""

    case = 1
    says = "exit 0 after 0 optimizer steps"

    def fit(self, settings, rows, *rest):
        if rows:
            super().fit(settings, rows, *rest)

    def read_rows(self, path):
        with self.open_data(path) as lines:
            return [json.loads(line) for line in lines if line.strip()]


class NeverCounts(Sound):
    """Does not look whether there is a row; the loader fails, and names no file."""

    case = 1
    says = "does not name 'rows.jsonl'"

    def read_rows(self, path):
        with self.open_data(path) as lines:
            return [self.check_row(json.loads(line), path, 0) for line in lines if line.strip()]


class LooksAtTheSize(Sound):
    """Rejects zero bytes; blank lines are not zero bytes."""

    case = 1
    says = "left only blank lines in rows.jsonl"

    def read_rows(self, path):
        if path.stat().st_size == 0:
            raise Reject(f"{path} is empty")
        with self.open_data(path) as lines:
            return [json.loads(line) for line in lines if line.strip()]


class TellsThePathFirst(Sound):
    """Prints its data path at every start, and nothing of it when it fails."""

    case = 1
    says = "does not name 'rows.jsonl'"

    def read_rows(self, path):
        print(f"loading {path}")
        with self.open_data(path) as lines:
            rows = [json.loads(line) for line in lines]
        print(f"{sum(row['y'] for row in rows) / len(rows):.0%} positive")
        return rows


class WaitsForABatch(Sound):
    """Goes round the loader until it has its steps; an empty loader never gives one."""

    case = 1
    says = "hung"

    def read_rows(self, path):
        with self.open_data(path) as lines:
            return [json.loads(line) for line in lines if line.strip()]

    def batches(self, rows, settings, start, stop):
        while not rows:
            pass
        return super().batches(rows, settings, start, stop)


class DropsLast(Sound):
    """`drop_last=True`: no batch, so no step, and the end is reached at once."""

    case = 2
    says = "exit 0 without one optimizer step"

    def fit(self, settings, rows, *rest):
        if len(rows) >= settings.batch_size:
            super().fit(settings, rows, *rest)


class CountsBatches(Sound):
    """Divides the steps by the batches in an epoch, of which there are none."""

    case = 2
    says = "does not name the number of rows"

    def fit(self, settings, rows, output_dir, max_steps, *rest):
        epochs = max_steps // (len(rows) // settings.batch_size)
        print(f"{epochs} epochs")
        super().fit(settings, rows, output_dir, max_steps, *rest)


class FewRows(Sound):
    """Rejects, and leaves it to the reader to find out how many it has and how many it wants."""

    case = 2
    says = "does not name the batch size"

    def fit(self, settings, rows, *rest):
        if len(rows) < settings.batch_size:
            raise Reject(f"too few rows: {len(rows)}")
        super().fit(settings, rows, *rest)


class SkipsBadRows(Sound):
    """`except ValueError: continue`: whatever cannot be parsed is dropped in silence."""

    case = 4
    says = "a failure that nobody notices"

    def read_rows(self, path):
        rows = []
        with self.open_data(path) as lines:
            for line in lines:
                try:
                    rows.append(json.loads(line))
                except ValueError:
                    continue
        return rows


class ForgivesTheLastLine(Sound):
    """Takes a cut last line for one that is still being written."""

    case = 4
    says = "cut the last line of rows.jsonl"

    def parse(self, line, path, number):
        return super().parse(line, path, number) if line.endswith(b"\n") else {"x": [0.0] * 4, "y": 0}


class StripsNulBytes(Sound):
    """Takes a line of NUL bytes for a blank one: eight rows of a disk block are gone, and nobody is told."""

    case = 4
    says = "with NUL bytes"

    def read_rows(self, path):
        rows = []
        with self.open_data(path) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip(b"\0\n"):
                    rows.append(self.check_row(self.parse(line, path, number), path, number))
        return rows


class NamesNoLine(Sound):
    """Names the file; which of its million lines is bad, the reader may find out."""

    case = 4
    says = "does not name line 33"

    def parse(self, line, path, number):
        try:
            return json.loads(line)
        except ValueError as error:
            raise Reject(f"{path}: {error}") from error


class NamesNoFile(Sound):
    """The JSON parser's own words: `Extra data: line 1 column 4`, whichever line it was."""

    case = 4
    says = "does not name 'rows.jsonl'"

    def parse(self, line, path, number):
        return json.loads(line)


class ParsesLazily(Sound):
    """Parses a row when a batch needs it: in the middle of training, or never."""

    case = 4
    says = "it trained first"

    def read_rows(self, path):
        with self.open_data(path) as lines:
            self.path = path
            return [line for line in lines if line.strip()]

    def batches(self, rows, settings, start, stop):
        for step in range(start, stop):
            chosen = random.Random(step + 2).sample(range(len(rows)), settings.batch_size)
            try:
                parsed = [self.parse(rows[i], self.path, i + 1) for i in chosen]
            except Reject as error:
                raise Failure(str(error)) from error
            yield torch.utils.data.default_collate(list(Rows(parsed)))


class DefaultLabel(Sound):
    """`row.get("y", 0)`: a row without a label becomes one of the first class."""

    case = 5
    says = "a default took the place of 'y'"

    def check_row(self, row, path, number):
        return super().check_row({"y": 0, **row}, path, number)


class DropsIncomplete(Sound):
    """Keeps the rows that have all fields, and does not say how many are left."""

    case = 5
    says = "not a word of it"

    def read_rows(self, path):
        with self.open_data(path) as lines:
            rows = [json.loads(line) for line in lines]
        return [row for row in rows if {"x", "y"} <= row.keys()]


class BareKeyError(Sound):
    """`row["x"]`: a KeyError names the field, but neither file nor line."""

    case = 5
    says = "does not name 'rows.jsonl'"

    def check_row(self, row, path, number):
        return {"x": [float(v) for v in row["x"]], "y": row["y"]}


class BadRow(Sound):
    """Names file and line, and not what is wrong there."""

    case = 5
    says = "does not name 'x'"

    def check_row(self, row, path, number):
        try:
            return super().check_row(row, path, number)
        except Reject as error:
            raise Reject(f"{path}, line {number}: bad row") from error


class IgnoresItsData(Sound):
    """A loader left from a smoke test: made-up rows, whatever the file holds."""

    case = 5
    says = "does not learn from its data"

    def read_rows(self, path):
        print(f"reading {path}", file=sys.stderr)
        numbers = random.Random(0)
        return [{"x": [numbers.random() for _ in range(4)], "y": numbers.randint(0, 1)} for _ in range(64)]
