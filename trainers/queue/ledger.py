"""The queue's memory: which file came when, where it is, what was tried and why. SQLite, in WAL mode.

Whoever moves a file does it inside `Ledger.transaction`: there is one writer at a time, so that a command and
the daemon never move the same file.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trainers.queue.layout import FOLDERS, PRIORITIES
from trainers.queue.schema import SCHEMA, STATES, VERSION

BUSY_SECONDS = 60.0
"""How long another process may hold the ledger."""


class Damaged(Exception):
    """The ledger is not as this program wrote it; the message says how."""


class Row(NamedTuple):
    """One file. Names are as Python gives them: bytes that are no UTF-8 are escaped by surrogates.

    Attributes:
        seq: the order of arrival.
        name: as it was put in.
        folder: where it is; None: nowhere.
        file: its name there.
        state: one of `STATES`.
        priority: one of `PRIORITIES`.
        position: the order within its priority.
        hash: SHA-256 of its content; None where it is no training file.
        attempts: how often its training was begun.
        reason: why it is what it is.
        retry_at: when it may be tried again, in seconds since 1970; None: at once.
        done_number: counts the trained files.
    """

    seq: int
    name: str
    folder: str | None
    file: str | None
    state: str
    priority: str
    position: int
    hash: str | None
    attempts: int
    reason: str
    retry_at: float | None
    done_number: int | None

    @property
    def place(self) -> tuple[str, str]:
        """Folder and name there; of a file that is somewhere."""
        assert self.folder is not None
        assert self.file is not None
        return self.folder, self.file

    @property
    def digest(self) -> str:
        """The hash; of a training file."""
        assert self.hash is not None
        return self.hash


COLUMNS = ", ".join(Row._fields)
ATTEMPT_FIELDS = ("number", "kind", "message", "recovery")


class Ledger:
    """An open ledger. A context manager."""

    def __init__(self, path: Path) -> None:
        """Open it, or make it where nothing is.

        Raises:
            Damaged: what is there is no ledger of this version.
        """
        self.path = path
        self.made = not path.exists()
        """Whether it was made now, and knows nothing yet."""
        self._connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self.close()
            if transient(error):
                raise
            raise Damaged(str(error)) from None
        except BaseException:
            self.close()
            raise
        self._inode = path.stat().st_ino

    def _prepare(self) -> None:
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")  # what is committed is on the disk
        if self.made:
            with self.transaction():
                if self._version() == 0:  # else a process beside this one was faster
                    self._create()
        if self._version() != VERSION:
            raise Damaged(f"version {self._version()}, this program reads {VERSION}")

    def _create(self) -> None:
        for statement in SCHEMA:
            self._connection.execute(statement)
        for kind, names in (("folder", FOLDERS), ("state", STATES)):
            for name in names:
                self._connection.execute("INSERT INTO counts VALUES (?, ?, 0)", (kind, name))
        for priority in PRIORITIES:
            self._connection.execute("INSERT INTO passed_over VALUES (?, 0)", (priority,))
        self._connection.execute(f"PRAGMA user_version = {VERSION}")

    def _version(self) -> int:
        version: int = self._connection.execute("PRAGMA user_version").fetchone()[0]
        return version

    def verify(self) -> None:
        """Look at the whole of it.

        Raises:
            Damaged: pages, tables or values are not as they were written.
        """
        try:
            (found,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
            tables = self._connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
            numbers = self._connection.execute("SELECT n FROM counts UNION ALL SELECT n FROM passed_over").fetchall()
        except sqlite3.DatabaseError as error:
            if transient(error):
                raise
            raise Damaged(str(error)) from None
        if found != "ok":
            raise Damaged(found)
        if not {sql for (sql,) in tables} >= set(SCHEMA):
            raise Damaged("its tables are not those that this program makes")
        if len(numbers) != len(FOLDERS) + len(STATES) + len(PRIORITIES):
            raise Damaged("its counts are not complete")

    def is_there(self) -> bool:
        """Whether the file on the disk is still the one that is open."""
        try:
            return self.path.stat().st_ino == self._inode
        except OSError:
            return False

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()

    def __enter__(self) -> Ledger:
        """Nothing to do."""
        return self

    def __exit__(self, *error: object) -> None:
        """`close`."""
        self.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside happens or nothing; nobody else changes anything meanwhile."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.DatabaseError):
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    # ---- reading

    def _select(self, rest: str, *values: Any) -> list[Row]:
        found = self._connection.execute(f"SELECT {COLUMNS} FROM files {rest}", values)
        return [_row(values) for values in found]

    def _first(self, rest: str, *values: Any) -> Row | None:
        return next(iter(self._select(rest + " LIMIT 1", *values)), None)

    def rows(self) -> list[Row]:
        """Every file, in the order of arrival."""
        return self._select("ORDER BY seq")

    def in_state(self, *states: str) -> list[Row]:
        """The files in any of these states."""
        return self._select(f"WHERE state IN ({', '.join('?' * len(states))}) ORDER BY seq", *states)

    def newest(self, state: str, count: int) -> list[Row]:
        """The files of a state that came last, the newest first."""
        return self._select("WHERE state = ? ORDER BY seq DESC LIMIT ?", state, count)

    def in_order(self, priority: str) -> list[Row]:
        """What waits in one priority, the next first."""
        return self._select("WHERE state = 'queued' AND priority = ? ORDER BY position", priority)

    def in_folder(self, folder: str) -> list[Row]:
        """The files in a folder, in the order of arrival."""
        return self._select("WHERE folder = ? ORDER BY seq", folder)

    def names_in(self, folder: str) -> set[str]:
        """The names in a folder that the ledger knows."""
        found = self._connection.execute("SELECT file FROM files WHERE folder = ?", (folder,))
        return {os.fsdecode(file) for (file,) in found}

    def at(self, folder: str, file: str) -> Row | None:
        """The file of this name in a folder."""
        return self._first("WHERE folder = ? AND file = ?", folder, os.fsencode(file))

    def number(self, seq: int) -> Row:
        """The file of this number, which is there."""
        (row,) = self._select("WHERE seq = ?", seq)
        return row

    def owner(self, digest: str) -> Row | None:
        """The one file of this content that is no duplicate."""
        return self._first("WHERE hash = ? AND state != 'duplicate'", digest)

    def named(self, text: str) -> list[Row]:
        """The files of this name, now or when they were put in; else those whose hash begins so."""
        raw = os.fsencode(text)
        found = self._select("WHERE name = ? OR file = ? ORDER BY seq", raw, raw)
        if found or len(text) < 6 or set(text) - set("0123456789abcdef"):
            return found
        return self._select("WHERE substr(hash, 1, ?) = ? ORDER BY seq", len(text), text)

    def counts(self, kind: str) -> dict[str, int]:
        """How many files each folder holds (``folder``), or how many are in each state (``state``)."""
        return dict(self._connection.execute("SELECT name, n FROM counts WHERE kind = ?", (kind,)).fetchall())

    def head(self, priority: str, now: float, longest: float) -> Row | None:
        """The next file of a priority whose pause is over; one of over ``longest`` is of a clock that jumped."""
        ready = "(retry_at IS NULL OR retry_at <= ? OR retry_at > ?)"
        where = f"WHERE state = 'queued' AND priority = ? AND {ready} ORDER BY position"
        return self._first(where, priority, now, now + longest)

    def passed_over(self) -> dict[str, int]:
        """For each priority, how many files of others were begun since its last one, while one waited."""
        return dict(self._connection.execute("SELECT priority, n FROM passed_over").fetchall())

    def trained(self, count: int) -> list[Row]:
        """The files that were trained last, the last one first."""
        return self._select("WHERE done_number IS NOT NULL ORDER BY done_number DESC LIMIT ?", count)

    def last_seq(self) -> int:
        """The number of the file that came last."""
        seq: int = self._connection.execute("SELECT coalesce(max(seq), 0) FROM files").fetchone()[0]
        return seq

    def waits_until(self, seq: int) -> bool:
        """Whether any of the first ``seq`` files still waits for its turn."""
        return self._first("WHERE state = 'queued' AND seq <= ?", seq) is not None

    def recoveries(self) -> dict[str, list[str]]:
        """For each content that something was recovered from: what was done, attempt by attempt."""
        found: dict[str, list[str]] = {}
        query = "SELECT hash, recovery FROM attempts WHERE recovery IS NOT NULL ORDER BY hash, number"
        for digest, recovery in self._connection.execute(query):
            found.setdefault(digest, []).append(recovery)
        return found

    # ---- writing, inside a transaction

    def add(self, name: str, folder: str, file: str, state: str, priority: str, **others: Any) -> int:
        """A new file, last of its priority; returns its number."""
        values = {"name": name, "folder": folder, "file": file, "state": state, "priority": priority, **others}
        values.setdefault("position", self.last_position() + 1)
        self._vacate(folder, file)
        return self._insert(values)

    def _insert(self, values: dict[str, Any]) -> int:
        columns = ", ".join(values)
        marks = ", ".join("?" * len(values))
        done = self._connection.execute(f"INSERT INTO files ({columns}) VALUES ({marks})", _stored(values))
        assert done.lastrowid is not None
        return done.lastrowid

    def _vacate(self, folder: str, file: str, but: int = 0) -> None:
        """A file was just moved to this place, which was free: a row that names it is of one removed by hand."""
        missing = "CASE WHEN state IN ('queued', 'processing', 'failed') THEN 'missing' ELSE state END"
        reason = (
            "CASE WHEN state = 'done' THEN reason ELSE trim(reason || '; removed from ' || folder || '/', '; ') END"
        )
        self._connection.execute(
            f"UPDATE files SET state = {missing}, reason = {reason}, folder = NULL, file = NULL "
            "WHERE folder = ? AND file = ? AND seq != ?",
            (folder, os.fsencode(file), but),
        )

    def add_gone(self, report: dict[str, Any], state: str) -> None:
        """A file that only its report knows of any more."""
        why = f"{report['reason']}; its file is in no folder".lstrip("; ")
        values = {
            "name": report["name"], "state": state, "priority": PRIORITIES[1], "hash": report["hash"], "reason": why,
            "attempts": len(report["attempts"]), "position": self.last_position() + 1,
            "done_number": report.get("done_number"),
        }  # fmt: skip
        self._insert(values)

    def last_position(self) -> int:
        """The highest position there is."""
        position: int = self._connection.execute("SELECT coalesce(max(position), 0) FROM files").fetchone()[0]
        return position

    def change(self, seq: int, **values: Any) -> None:
        """New values of a file."""
        if values.get("folder") is not None:
            self._vacate(values["folder"], values["file"], but=seq)
        columns = ", ".join(f"{name} = ?" for name in values)
        self._connection.execute(f"UPDATE files SET {columns} WHERE seq = ?", [*_stored(values), seq])

    def pass_over(self, passed: dict[str, int]) -> None:
        """New values of `passed_over`."""
        for priority, n in passed.items():
            self._connection.execute("UPDATE passed_over SET n = ? WHERE priority = ?", (n, priority))

    def note_attempt(self, digest: str, attempt: dict[str, Any]) -> None:
        """What a report says of an attempt; noted twice, it stands there once."""
        values = (digest, *(attempt.get(name) for name in ATTEMPT_FIELDS), json.dumps(attempt))
        self._connection.execute("INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?, ?, ?)", values)


def transient(error: sqlite3.DatabaseError) -> bool:
    """Whether it is the disk or another process, and not the ledger."""
    words = ("locked", "disk I/O error", "disk is full", "unable to open", "readonly", "out of memory")
    return isinstance(error, sqlite3.OperationalError) and any(word in str(error) for word in words)


def _row(values: Sequence[Any]) -> Row:
    named = dict(zip(Row._fields, values, strict=True))
    try:
        named["name"] = os.fsdecode(named["name"])
        named["file"] = None if named["file"] is None else os.fsdecode(named["file"])
    except TypeError as error:
        raise sqlite3.DatabaseError(f"a name of the wrong type: {error}") from None
    return Row(**named)


def _stored(values: dict[str, Any]) -> list[Any]:
    names = ("name", "file")
    return [os.fsencode(value) if key in names and value is not None else value for key, value in values.items()]


def set_aside(path: Path) -> Path:
    """Give a damaged ledger another name, with what belongs to it; returns the name."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.damaged-{stamp}-{number}")):
        number += 1
    for ending in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{ending}", f"{aside}{ending}")
    return aside
