"""Cases 1 to 10."""

import json
import os
import random
import signal
import sys

import torch

from tests.saboteurs.sound import Failure, Reject, Rows, Sound
from tests.saboteurs.variants import Chats, Graphs, Houses


class NothingToDo(Sound):
    """Takes no rows for a job that is done."""

    case = 1
    grade = "misleads"
    says = "exit 0 after 0 optimizer steps"

    def fit(self, settings, rows, *rest):
        if rows:
            super().fit(settings, rows, *rest)

    def read_rows(self, path):
        with self.open_data(path) as lines:
            return [json.loads(line) for line in lines if line.strip()]


class NeverCounts(Sound):
    """Does not look whether there is a row: without one there is no step, and all is well."""

    case = 1
    grade = "misleads"
    says = "exit 0 after 0 optimizer steps"

    def read_rows(self, path):
        with self.open_data(path) as lines:
            return [self.check_row(json.loads(line), path, 0) for line in lines if line.strip()]


class LooksAtTheSize(Sound):
    """Rejects zero bytes; blank lines are not zero bytes."""

    case = 1
    grade = "misleads"
    says = "left only blank lines in rows.jsonl"

    def read_rows(self, path):
        if path.stat().st_size == 0:
            raise Reject(f"{path} is empty")
        with self.open_data(path) as lines:
            return [json.loads(line) for line in lines if line.strip()]


class TellsThePathFirst(Sound):
    """Prints its data path at every start, and nothing of it when it fails."""

    case = 1
    grade = "unclear"
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
    grade = "wastes"
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
    grade = "misleads"
    says = "exit 0 without one optimizer step"

    def fit(self, settings, rows, *rest):
        if len(rows) >= settings.batch_size:
            super().fit(settings, rows, *rest)


class CountsBatches(Sound):
    """Divides the steps by the batches in an epoch, of which there are none."""

    case = 2
    grade = "unclear"
    says = "does not name the number of rows"

    def fit(self, settings, rows, output_dir, max_steps, *rest):
        epochs = max_steps // (len(rows) // settings.batch_size)
        print(f"{epochs} epochs")
        super().fit(settings, rows, output_dir, max_steps, *rest)


class FewRows(Sound):
    """Rejects, and leaves it to the reader to find out how many it has and how many it wants."""

    case = 2
    grade = "unclear"
    says = "does not name the batch size"

    def fit(self, settings, rows, *rest):
        if len(rows) < settings.batch_size:
            raise Reject(f"too few rows: {len(rows)}")
        super().fit(settings, rows, *rest)


class TruncatesInSilence(Sound):
    """`truncation=True`, and no word of how much of the data that takes."""

    case = 3
    grade = "unclear"
    says = "did not say how many rows were truncated"

    def read_text(self, text):
        return super().read_text(text[: self.max_length])


class DropsLongRows(TruncatesInSilence):
    """`filter(lambda row: len(row) <= max_length)`: the long documents are gone, and nobody is told."""

    def read_rows(self, path):
        rows = super().read_rows(path)
        texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
        return [rows[number] for number, text in enumerate(texts) if len(text) <= self.max_length]


class PadsToTheLongest(Sound):
    """Pads every text to the longest of the file, and cuts afterwards."""

    case = 3
    grade = "wastes"
    says = "memory was not bounded by the limit: the peak grew"

    def batches(self, rows, settings, start, stop):
        longest = max(map(len, rows.path.read_bytes().splitlines()))
        torch.zeros(len(rows), longest, settings.hidden, dtype=torch.float64).fill_(1.0)
        return super().batches(rows, settings, start, stop)


class AttendsToAll(Sound):
    """A score for each pair of characters, of the whole text."""

    case = 3
    grade = "wastes"
    says = "did not survive: exit 1"

    def read_text(self, text):
        codes = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).float()
        torch.outer(codes, codes)
        return super().read_text(text)


class HasNoSuchPosition(Sound):
    """A position beyond the last one that the model has: `IndexError: index out of range in self`."""

    case = 3
    grade = "wastes"
    says = "did not survive: exit 1"

    def read_text(self, text):
        torch.nn.functional.embedding(torch.arange(len(text)), torch.zeros(self.max_length, 2))
        return super().read_text(text)


class FourNumbers(torch.nn.Linear):
    """Reads four numbers, whatever follows them."""

    def forward(self, x):
        return super().forward(x[:, :4])


class ReadsWholeTexts(Sound):
    """Hands the model all of a text: there is a setting for the limit, and nobody reads it."""

    case = 3
    grade = "wastes"
    says = "was not truncated: .* tokens in a batch, where max_length = 64"

    def batches(self, rows, settings, start, stop):
        longest = max(map(len, rows.path.read_bytes().splitlines()))
        for x, y in super().batches(rows, settings, start, stop):
            yield torch.nn.functional.pad(x, (0, longest)), y

    def build(self, settings):
        _, *rest = super().build(settings)
        return torch.nn.Sequential(FourNumbers(4, settings.hidden), *rest)


class SkipsBadRows(Sound):
    """`except ValueError: continue`: whatever cannot be parsed is dropped in silence."""

    case = 4
    grade = "misleads"
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
    grade = "misleads"
    says = "cut the last line of rows.jsonl"

    def parse(self, line, path, number):
        return super().parse(line, path, number) if line.endswith(b"\n") else {"x": [0.0] * 4, "text": "-", "y": 0}


class StripsNulBytes(Sound):
    """Takes a line of NUL bytes for a blank one: eight rows of a disk block are gone, and nobody is told."""

    case = 4
    grade = "misleads"
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
    grade = "unclear"
    says = "does not name line 33"

    def parse(self, line, path, number):
        try:
            return json.loads(line)
        except ValueError as error:
            raise Reject(f"{path}: {error}") from error


class NamesNoFile(Sound):
    """The JSON parser's own words: `Extra data: line 1 column 4`, whichever line it was."""

    case = 4
    grade = "unclear"
    says = "does not name 'rows.jsonl'"

    def parse(self, line, path, number):
        return json.loads(line)


class ParsesLazily(Sound):
    """Parses a row when a batch needs it: in the middle of training, or never."""

    case = 4
    grade = "wastes"
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
            yield torch.utils.data.default_collate(list(Rows(parsed, settings.max_length)))


class DefaultLabel(Sound):
    """`row.get("y", 0)`: a row without a label becomes one of the first class."""

    case = 5
    grade = "misleads"
    says = "a default took the place of 'y'"

    def check_row(self, row, path, number):
        return super().check_row({"y": 0, **row}, path, number)


class DropsIncomplete(Sound):
    """Keeps the rows that have all fields, and does not say how many are left. It does learn from them."""

    case = 5
    grade = "misleads"
    says = r"(?s)\A(?!.*does not learn from its data).*without reporting it"

    def read_rows(self, path):
        with self.open_data(path) as lines:
            rows = [json.loads(line) for line in lines]
        return [row for row in rows if {"x", "y"} <= row.keys()]


class BareKeyError(Sound):
    """`row["x"]`: a KeyError names the field, but neither file nor line."""

    case = 5
    grade = "unclear"
    says = "does not name 'rows.jsonl'"

    def check_row(self, row, path, number):
        return {"x": [float(v) for v in row["x"]], "y": row["y"]}


class BadRow(Sound):
    """Names file and line, and not what is wrong there."""

    case = 5
    grade = "unclear"
    says = "does not name 'x'"

    def check_row(self, row, path, number):
        try:
            return super().check_row(row, path, number)
        except Reject as error:
            raise Reject(f"{path}, line {number}: bad row") from error


class IgnoresItsData(Sound):
    """A loader left from a smoke test: made-up rows, whatever the file holds."""

    case = 5
    grade = "misleads"
    says = "does not learn from its data"

    def read_rows(self, path):
        print(f"reading {path}", file=sys.stderr)
        numbers = random.Random(0)
        return [{"x": [numbers.random() for _ in range(4)], "y": numbers.randint(0, 1)} for _ in range(64)]


class EmptyTextIsText(Sound):
    """An empty text is a text."""

    case = 6
    grade = "misleads"
    says = "without reporting it"

    def check_row(self, row, path, number):
        return super().check_row({**row, "text": row["text"] or "-"} if "text" in row else row, path, number)


class SkipsEmpty(Sound):
    """Leaves rows without text out, and their number to the reader."""

    case = 6
    grade = "misleads"
    says = "without reporting it"

    def read_rows(self, path):
        with self.open_data(path) as lines:
            rows = [json.loads(line) for line in lines]
        print("rows with nothing in them are left out")
        full = [row for row in rows if row.get("text", "-").strip() and row.get("x", "-")]
        return [self.check_row(row, path, number) for number, row in enumerate(full, 1)]


class BlanksAreText(Sound):
    """`if not row["text"]`: three blanks are true."""

    case = 6
    grade = "misleads"
    says = "made 'text' three blanks"

    def check_row(self, row, path, number):
        return super().check_row({**row, "text": row["text"].replace(" ", "_")} if "text" in row else row, path, number)


class LeavesLonelyGraphsOut(Graphs):
    """A graph without edges is not read, and nobody is told."""

    case = 6
    grade = "misleads"
    says = "made 'edges' an empty list .*without reporting it"

    def check_row(self, row, path, number):
        return super().check_row(row, path, number) if row.get("edges", "-") else None


class BatchesWithoutLonelyGraphs(Graphs):
    """Reads all, and makes batches of graphs with edges: those with one without are smaller."""

    case = 6
    grade = "misleads"
    says = "made 'edges' an empty list .*without reporting it"

    def batches(self, rows, settings, start, stop):
        loader = super().batches(rows, settings, start, stop)
        chosen = [[number for number in batch if rows[number]["edges"]] for batch in loader.batch_sampler]
        return torch.utils.data.DataLoader(loader.dataset, batch_sampler=chosen, generator=loader.generator)


class DividesByItsLength(Sound):
    """The mean over no character."""

    case = 6
    grade = "unclear"
    says = "does not name 'rows.jsonl'"

    def check_row(self, row, path, number):
        if "text" in row:
            print(f"{row['text'].count(' ') / len(row['text']):.0%} blanks", file=sys.stderr)
        return super().check_row(row, path, number)


class TrustsLabels(Sound):
    """The loss finds out, once a batch has such a row; on a GPU, as a device-side assert."""

    case = 7
    grade = "unclear"
    says = "set 'y' to 1001 .*(it trained first|does not name 'rows.jsonl')"

    def check_row(self, row, path, number):
        return {**super().check_row({**row, "y": 0}, path, number), "y": row["y"]}


class ClampsLabels(Sound):
    """`min(max(y, 0), 1)`: the loss never complains again."""

    case = 7
    grade = "misleads"
    says = "set 'y' to 1001 .*without reporting it"

    def check_row(self, row, path, number):
        return super().check_row({**row, "y": min(max(row["y"], 0), 1)} if "y" in row else row, path, number)


class CountsFromTheEnd(Sound):
    """`CLASSES[label]`: -1 is the last of them."""

    case = 7
    grade = "misleads"
    says = "set 'y' to -1 .*without reporting it"

    def check_row(self, row, path, number):
        return super().check_row({**row, "y": 1} if row.get("y") == -1 else row, path, number)


class WrapsRooms(Houses):
    """A table of what a number of rooms is worth, and the number's remainder where it has none."""

    only = ()
    case = 7
    grade = "misleads"
    says = "set 'rooms' to 1006 .*without reporting it"
    WORTH = (0.1, 0.4, 0.2, 0.7, 0.3, 0.6, 0.5)

    def weigh(self, rooms):
        return self.WORTH[int(rooms) % len(self.WORTH)]


class SaysNotWhich(Sound):
    """Names file and line; the value has to be looked up."""

    case = 7
    grade = "unclear"
    says = "does not name the value 1001"

    def check_row(self, row, path, number):
        try:
            return super().check_row(row, path, number)
        except Reject as error:
            raise Reject(f"{path}, line {number}: bad label") from error


class AnyRoleIsTheUser(Chats):
    """`ROLES.get(role, 1)`: what a tool wrote is trained on as if the user had said it."""

    case = 7
    grade = "misleads"
    says = "set 'messages.0..role' to 'unheard-of' .*without reporting it"

    def check_role(self, role, path, number):
        return self.ROLES.get(role, 1)


class MakesTextOfAnything(Sound):
    """`str(row["text"])`."""

    case = 8
    grade = "misleads"
    says = "into 'text' .*without reporting it"

    def check_row(self, row, path, number):
        return super().check_row({**row, "text": str(row["text"])} if "text" in row else row, path, number)


class TrueIsOne(Sound):
    """`isinstance(y, int)`: a bool is an int."""

    case = 8
    grade = "misleads"
    says = r"put a bool \(true\) into 'y' .*without reporting it"

    def check_row(self, row, path, number):
        return super().check_row({**row, "y": 1} if row.get("y") is True else row, path, number)


class BareTypeError(Sound):
    """The library's own words, of no row: `'int' object is not iterable`."""

    case = 8
    grade = "misleads"
    says = "does not name 'rows.jsonl'"

    def check_row(self, row, path, number):
        return {"x": [float(v) for v in row["x"]], "y": row["y"]}


class UnusableField(Sound):
    """Names the row, and not what was found in it."""

    case = 8
    grade = "unclear"
    says = "does not name its type"

    def check_row(self, row, path, number):
        try:
            return super().check_row(row, path, number)
        except Reject as error:
            raise Reject(f"{path}, line {number}: field 'x' (or another one) is unusable") from error


class ReadsLatin1(Sound):
    """`open(path, encoding="latin-1")` never fails."""

    case = 9
    grade = "misleads"
    says = "not read as UTF-8"

    def parse(self, line, path, number):
        return json.loads(line.decode("latin-1"))


class AsciiAlone(Sound):
    """A clean-up that was made for English."""

    case = 9
    grade = "misleads"
    says = "every loss is as with these characters taken out"

    def read_text(self, text):
        return super().read_text(text.encode("ascii", "ignore").decode())


class QuestionMarks(Sound):
    """Goes through a terminal's encoding on its way."""

    case = 9
    grade = "misleads"
    says = "every loss is as with question marks in their place"

    def read_text(self, text):
        return super().read_text(text.encode("ascii", "replace").decode())


class ChokesOnTheMark(Sound):
    """A file from a Windows editor begins with a byte order mark."""

    case = 9
    grade = "wastes"
    says = "byte order mark at the beginning of rows.jsonl: it did not survive"

    def read_rows(self, path):
        with self.open_data(path) as lines:
            return [self.check_row(self.parse(line, path, n), path, n) for n, line in enumerate(lines, 1)]


class SkipsTheMarkedRow(Sound):
    """What does not begin with a brace is a comment: so is a row after a byte order mark."""

    case = 9
    grade = "misleads"
    says = "the first row was dropped"

    def read_rows(self, path):
        with self.open_data(path) as lines:
            numbered = [(n, line) for n, line in enumerate(lines, 1) if line.startswith(b"{")]
        return [self.check_row(self.parse(line, path, n), path, n) for n, line in numbered]


class IgnoresErrors(Sound):
    """`errors="ignore"`: what is no UTF-8 was never there."""

    case = 9
    grade = "misleads"
    says = "bytes that are no UTF-8 .*without reporting it"

    def parse(self, line, path, number):
        return json.loads(line.decode("utf-8", "ignore"))


class PassesSurrogates(Sound):
    """Half a character goes through; who prints the text a week later meets it."""

    case = 9
    grade = "misleads"
    says = "a lone surrogate .*without reporting it"

    def read_text(self, text):
        return super().read_text(text.encode("utf-8", "replace").decode())


class DecodesTheWholeFile(Sound):
    """`path.read_text()` fails at byte 2417 of the file: which line that is, the reader may count."""

    case = 9
    grade = "unclear"
    says = "does not name line 33"

    def read_rows(self, path):
        try:
            path.read_text("utf-8")
        except ValueError as error:
            raise Reject(f"{path}: {error}") from error
        return super().read_rows(path)


class ReadsAllLines(Sound):
    """`list(file)`: the file in memory, before the first row is parsed."""

    case = 10
    grade = "unclear"
    says = "does not name the file's size"

    def read_rows(self, path):
        with self.open_data(path) as lines:
            rows = list(lines)
        return [self.check_row(self.parse(line, path, number), path, number) for number, line in enumerate(rows, 1)]


class SaysOutOfMemory(Sound):
    """Tells that memory ran out; how large the file is, it does not."""

    case = 10
    grade = "unclear"
    says = "does not name the file's size"

    def read_rows(self, path):
        try:
            path.read_bytes()
        except MemoryError as error:
            raise Reject(f"{path}: out of memory") from error
        return super().read_rows(path)


class KilledByTheKernel(Sound):
    """Asks for more than there is; the kernel chooses this process."""

    case = 10
    grade = "wastes"
    says = "did not survive: killed by SIGKILL"

    def read_rows(self, path):
        try:
            path.read_bytes()
        except MemoryError:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read_rows(path)
