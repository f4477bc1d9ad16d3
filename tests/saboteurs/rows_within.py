"""Rows in several files, in nested objects, and numbers without a point (cases 4, 5 and 8)."""

import threading

from tests.saboteurs.sound import Reject, Sound
from tests.saboteurs.variants import Chats


class Parts(Sound):
    """A folder of four files, each read by a thread of its own; what fails in one is raised where all are joined."""

    only = (4, 5)
    FILES = 4

    def make_data(self, folder, rows, seed):
        whole = super().make_data(folder, rows, seed)
        lines = whole.read_text().splitlines(keepends=True)
        whole.unlink()
        parts = folder / "parts"
        parts.mkdir()
        for number in range(self.FILES):
            (parts / f"part-{number}.jsonl").write_text("".join(lines[number :: self.FILES]))
        return parts

    def read_rows(self, path):
        files = sorted(path.glob("*.jsonl"))
        found, failed = {}, []
        threads = [threading.Thread(target=self.read_part, args=[file, found, failed]) for file in files]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.look_at(failed)
        return [rows[number] for file, rows in sorted(found.items()) for number in range(len(rows))]

    def read_part(self, file, found, failed):
        try:
            found[file] = super().read_rows(file)
        except Reject as error:
            failed.append(error)

    def look_at(self, failed):
        for error in failed:
            raise error


class ThreadsDieInSilence(Parts):
    """A thread that fails is not there when the rows are put together."""

    only = ()
    case = 4
    grade = "misleads"
    says = r"overwrote all of part-2\.jsonl, one of several files, with NUL bytes: exit 0"

    def look_at(self, failed):
        pass


class DropsAWholeFileAlone(Parts):
    """Bad lines are told; a file in which nothing can be read is none of ours."""

    only = ()
    case = 4
    grade = "misleads"
    says = r"overwrote all of part-2\.jsonl, one of several files, with NUL bytes: exit 0"

    def read_part(self, file, found, failed):
        if file.read_bytes().strip(b"\0"):
            super().read_part(file, found, failed)


class LooksAtTheTop(Chats):
    """Looks whether there are messages, and takes what is in them as it comes."""

    case = 5
    grade = "misleads"
    says = r"took 'messages\[0\]\.content' out of line 33 .*exit 0"

    def check_row(self, row, path, number):
        if isinstance(row, dict) and isinstance(row.get("messages"), list):
            told = [{"role": m.get("role", "user"), "content": m.get("content", "...")} for m in row["messages"]]
            row = {**row, "messages": told}
        return super().check_row(row, path, number)


class ShrugsAtARole(LooksAtTheTop):
    """Whoever has no role is taken for the user."""

    says = r"took 'messages\[0\]\.role' out of line 33 .*exit 0"

    def check_row(self, row, path, number):
        if isinstance(row, dict) and isinstance(row.get("messages"), list):
            row = {**row, "messages": [{"role": "assistant", **message} for message in row["messages"]]}
        return Chats.check_row(self, row, path, number)


class WantsAFloat(Sound):
    """`isinstance(value, float)`: 1 is none."""

    case = 8
    grade = "unclear"
    says = "wrote 'x' as a whole number without a point in line 33 .*does not take a whole number for a number"

    def check_row(self, row, path, number):
        if isinstance(row, dict) and isinstance(row.get("x"), list) and not all(type(v) is float for v in row["x"]):
            raise Reject(f"{path}, line {number}: field 'x' is {row['x']!r}, not a list of float")
        return super().check_row(row, path, number)


class SkipsWhatIsNoFloat(Sound):
    """What is no float is an empty cell, and counts as 0."""

    case = 8
    grade = "misleads"
    says = "wrote 'x' as a whole number without a point in line 33 .*its losses are others"

    def check_row(self, row, path, number):
        if isinstance(row, dict) and isinstance(row.get("x"), list):
            row = {**row, "x": [v if type(v) is not int else 0.0 for v in row["x"]]}
        return super().check_row(row, path, number)


class MessagesWithNotes(Chats):
    """Some messages are given a note, which nobody reads; the others have none."""

    only = (5,)

    def make_data(self, folder, rows, seed):
        path = super().make_data(folder, rows, seed)
        path.write_text(path.read_text().replace('{"role": "user",', '{"note": "seen", "role": "user",'))
        return path
