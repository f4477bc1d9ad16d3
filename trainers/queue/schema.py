"""The ledger's tables."""

from __future__ import annotations

from collections.abc import Sequence

from trainers.queue.layout import FOLDERS, PRIORITIES

STATES = ("queued", "processing", "done", "failed", "rejected", "duplicate", "missing")
"""``rejected``: no training file. ``duplicate``: of the same content as another. ``missing``: it is in no folder."""
VERSION = 1


def _one_of(column: str, values: Sequence[str]) -> str:
    return f"CHECK ({column} IN ({', '.join(repr(value) for value in values)}))"


def _count(sign: str, row: str) -> str:
    there = f"(VALUES ('folder', {row}.folder), ('state', {row}.state))"
    return f"UPDATE counts SET n = n {sign} 1 WHERE (kind, name) IN {there}"


# The checks are what finds a ledger in which somebody has written: `PRAGMA quick_check` holds every row against
# them. The counts are kept by triggers, so that asking for them costs the same however many files there are.
SCHEMA = (
    f"""CREATE TABLE files (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    name BLOB NOT NULL CHECK (typeof(name) = 'blob'),
    folder TEXT {_one_of("folder", FOLDERS)},
    file BLOB CHECK (typeof(file) IN ('blob', 'null') AND (file IS NULL) = (folder IS NULL)),
    state TEXT NOT NULL {_one_of("state", STATES)},
    priority TEXT NOT NULL {_one_of("priority", PRIORITIES)},
    position INTEGER NOT NULL CHECK (typeof(position) = 'integer'),
    hash TEXT CHECK (hash IS NULL OR (typeof(hash) = 'text' AND length(hash) = 64)),
    attempts INTEGER NOT NULL DEFAULT 0 CHECK (typeof(attempts) = 'integer'),
    reason TEXT NOT NULL DEFAULT '' CHECK (typeof(reason) = 'text'),
    retry_at REAL CHECK (typeof(retry_at) IN ('real', 'null')),
    done_number INTEGER CHECK (typeof(done_number) IN ('integer', 'null'))
)""",
    "CREATE UNIQUE INDEX place ON files (folder, file)",
    "CREATE UNIQUE INDEX owner ON files (hash) WHERE state != 'duplicate'",
    "CREATE INDEX turn ON files (priority, position) WHERE state = 'queued'",
    "CREATE INDEX by_state ON files (state, seq)",
    "CREATE INDEX by_name ON files (name)",
    "CREATE INDEX by_position ON files (position)",
    "CREATE INDEX done_order ON files (done_number) WHERE done_number IS NOT NULL",
    "CREATE TABLE counts (kind TEXT NOT NULL, name TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (kind, name))",
    "CREATE TABLE passed_over (priority TEXT PRIMARY KEY, n INTEGER NOT NULL CHECK (typeof(n) = 'integer'))",
    """CREATE TABLE attempts (
    hash TEXT NOT NULL,
    number INTEGER NOT NULL CHECK (typeof(number) = 'integer'),
    kind TEXT NOT NULL,
    message TEXT NOT NULL,
    recovery TEXT,
    record TEXT NOT NULL,
    PRIMARY KEY (hash, number)
)""",
    f"CREATE TRIGGER added AFTER INSERT ON files BEGIN {_count('+', 'NEW')}; END",
    f"""CREATE TRIGGER changed AFTER UPDATE OF folder, state ON files
    BEGIN {_count("-", "OLD")}; {_count("+", "NEW")}; END""",
    f"CREATE TRIGGER removed AFTER DELETE ON files BEGIN {_count('-', 'OLD')}; END",
)
