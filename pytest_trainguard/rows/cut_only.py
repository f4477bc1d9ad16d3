"""Forms that are cut and nothing else: text, arrays and tokens in files, shards of examples, databases."""

from __future__ import annotations

import codecs
import io
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from pytest_trainguard.rows.forms import CutOnly, Form, NoRows
from pytest_trainguard.rows.packing import open_content

__all__ = ["Array", "Database", "PlainText", "Shard", "Tokens", "TorchFile"]

LONGEST_LINE = 1 << 16  # bytes of a text that count as one row, where it has no line ends
TOKENS = 1024  # of a stream of them for each row: as many as programs of language models read at once
TOKEN_BYTES = 4 * TOKENS
LLMC_MAGIC = (20240520).to_bytes(4, "little")  # a header of 1024 bytes that counts the tokens behind it
PACKED_BY_TORCH = (b"PK", b"\x80\x02")


class TorchFile(Form):
    """What torch saved: one example, or tensors of many, and nothing that has a name in every program."""

    name = ".pt"

    def read(self, content: bytes) -> list[object]:
        """Nothing that can be named."""
        raise NoRows("has no named fields")

    def write(self, rows: Sequence[object], like: bytes) -> bytes:
        """Nothing that can be named."""
        raise NoRows("has no named fields")


class PlainText(CutOnly):
    """Text: a line is a row, and blank lines stay between them."""

    name = "plain text"
    streamed = True
    counted = False

    def cut(self, file: Path, rows: int) -> tuple[bytes, int]:
        """The first lines as they are; of a very long one its beginning."""
        kept, count = [], 0
        with open_content(file) as lines:
            while count < rows and (line := lines.readline(LONGEST_LINE)):
                kept.append(line if line.endswith(b"\n") else _whole_characters(line))
                count += bool(line.strip())
        return b"".join(kept), count


class Array(CutOnly):
    """An array in a `.npy` file: its first axis is the rows; alone and of one axis it is a stream of tokens."""

    name = "a .npy array"
    counted = False

    def cut(self, file: Path, rows: int) -> tuple[bytes, int]:
        """The first rows, of a stream as many tokens as so many rows take; read from the disk no further."""
        whole = _load_array(file)
        if not whole.shape:
            raise NoRows("holds one value, and no rows")
        beside = [_load_array(other) for other in file.parent.glob("*.npy") if whole.ndim == 1 and other != file]
        is_stream = whole.ndim == 1 and not any(len(one.shape) > 1 and len(one) == len(whole) for one in beside)
        kept = whole[: rows * TOKENS if is_stream else rows]
        import numpy

        out = io.BytesIO()
        numpy.save(out, numpy.ascontiguousarray(kept), allow_pickle=False)
        return out.getvalue(), len(kept)


class Tokens(CutOnly):
    """Raw tokens, as `numpy.memmap` reads them: whatever type they have, a multiple of 8 bytes holds whole ones."""

    name = "a raw file of tokens"
    counted = False

    def cut(self, file: Path, rows: int) -> tuple[bytes, int]:
        """The first bytes: 4 KiB a row."""
        with file.open("rb") as content:
            kept = content.read(rows * TOKEN_BYTES)
        if kept.startswith(PACKED_BY_TORCH):
            raise NoRows("was saved by torch, or by pickle, and cannot be cut")
        if kept.startswith(LLMC_MAGIC) or file.with_suffix(".idx").exists():
            raise NoRows("has its length written down elsewhere (in its header, or in an .idx file), and cannot be cut")
        return kept[: len(kept) // 8 * 8 or len(kept)], len(kept)


class Shard(CutOnly):
    """A tar of examples as `webdataset` reads them: files that share a name up to its first dot are one example."""

    name = "a tar of examples"
    streamed = True

    def cut(self, file: Path, rows: int) -> tuple[bytes, int]:
        """The files of the first examples, read no further."""
        keys: set[str] = set()
        out = io.BytesIO()
        try:
            with (
                open_content(file) as content,
                tarfile.open(fileobj=content, mode="r|") as whole,
                tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as piece,
            ):
                for member in whole:
                    folder, name = os.path.split(member.name)
                    key = os.path.join(folder, name.partition(".")[0])
                    if member.isfile() and key not in keys and len(keys) == rows:
                        break
                    if member.isfile():
                        keys.add(key)
                    piece.addfile(member, whole.extractfile(member) if member.isfile() else None)
        except tarfile.TarError as error:
            raise ValueError(str(error)) from error
        return out.getvalue(), len(keys)


class Database(CutOnly):
    """An SQLite database."""

    name = "an SQLite database"
    counted = False

    def cut(self, file: Path, rows: int) -> tuple[bytes, int]:
        """The first rows of every table, and those that they refer to by foreign keys.

        Virtual tables and tables without a rowid stay whole.
        """
        folder = tempfile.mkdtemp(prefix="trainguard-")
        try:
            copy = Path(folder) / "copy"
            with (
                closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as whole,
                closing(sqlite3.connect(copy)) as piece,
            ):
                whole.backup(piece)
                most = _cut_tables(piece, rows)
                piece.execute("VACUUM")
            return copy.read_bytes(), most
        except sqlite3.Error as error:
            raise ValueError(str(error)) from error
        finally:
            shutil.rmtree(folder)


def _whole_characters(line: bytes) -> bytes:
    """A line that may end within a character, without that piece of one; bytes that are no UTF-8 stay."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    decoder.decode(line)
    begun = decoder.getstate()[0]
    return line[: len(line) - len(begun)]


def _load_array(file: Path):  # type: ignore[no-untyped-def]  # numpy is not there where this is checked
    """The array of a file, left on the disk.

    Raises:
        ValueError: it is none, or holds Python objects.
        ImportError: numpy is not installed.
    """
    try:
        import numpy
    except ImportError as error:
        raise ImportError("reading .npy files needs numpy") from error
    return numpy.load(file, mmap_mode="r", allow_pickle=False)


def _cut_tables(database: sqlite3.Connection, rows: int) -> int:
    """Delete all rows but the first of each table and what is referred to; how many rows the longest has then."""
    tables = _plain_tables(database)
    referring = {table: _referring(database, table, tables) for table in tables}
    done: list[str] = []
    while waiting := [table for table in tables if table not in done]:
        ready = [table for table in waiting if not {name for name, *_ in referring[table]} - {*done, table}]
        table = (ready or waiting)[0]
        kept = [f"SELECT rowid FROM {_quoted(table)} ORDER BY rowid LIMIT {rows:d}"]
        for name, own, other in referring[table]:
            if name in done:
                kept.append(
                    f"SELECT rowid FROM {_quoted(table)} WHERE {_quoted(own)} IN "
                    f"(SELECT {_quoted(other)} FROM {_quoted(name)})"
                )
        every = " UNION ".join(f"SELECT * FROM ({one})" for one in kept)
        database.execute(f"DELETE FROM {_quoted(table)} WHERE rowid NOT IN ({every})")
        done.append(table)
    database.commit()
    counts = [database.execute(f"SELECT count(*) FROM {_quoted(table)}").fetchone()[0] for table in tables]
    return max(counts, default=0)


def _plain_tables(database: sqlite3.Connection) -> list[str]:
    """The tables that rows can be deleted from by their rowid, without those that virtual tables are made of."""
    found = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' "
                             "ESCAPE '~'").fetchall()  # fmt: skip
    virtual = [name for name, sql in found if sql.upper().startswith("CREATE VIRTUAL")]
    plain = [name for name, _ in found if not any(name == one or name.startswith(f"{one}_") for one in virtual)]
    return [name for name in plain if _has_rowid(database, name)]


def _has_rowid(database: sqlite3.Connection, table: str) -> bool:
    try:
        database.execute(f"SELECT rowid FROM {_quoted(table)} LIMIT 1")
    except sqlite3.OperationalError:
        return False
    return True


def _referring(database: sqlite3.Connection, target: str, tables: Sequence[str]) -> list[tuple[str, str, str]]:
    """The tables that refer to one, each with the column that is referred to and the one that refers."""
    found = []
    for table in tables:
        for _, _, other, column, own, *_ in database.execute(f"PRAGMA foreign_key_list({_quoted(table)})"):
            if other.lower() == target.lower():
                found.append((table, own or _primary_key(database, target), column))
    return found


def _primary_key(database: sqlite3.Connection, table: str) -> str:
    """The column that is referred to where a foreign key names none."""
    columns = database.execute(f"PRAGMA table_info({_quoted(table)})").fetchall()
    return next((name for _, name, _, _, _, primary in columns if primary), "rowid")


def _quoted(name: str) -> str:
    """A name of a table or column in SQL, which has no place for parameters there."""
    return '"' + name.replace('"', '""') + '"'
