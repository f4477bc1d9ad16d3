"""A file changed as if the program had saved it so: checksums and sizes that other files hold of it are made to fit.

A manifest is any small file of text that holds another file's checksum, or its size beside its name: JSON, or lines as
`sha256sum` writes them. One that vouches for another manifest is made to fit as well.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["replace_file"]

ALGORITHMS = ("sha256", "sha1", "md5", "sha512", "blake2b")
LARGEST = 1 << 20  # bytes; a larger file is no manifest
_GONE = object()


def replace_file(file: Path, content: bytes | None, within: Path) -> None:
    """Give a file another content, or remove it, and have every manifest tell of the new one.

    For what a program could have saved. Damage at rest (a cut, flipped bits) leaves the checksums as they are.

    Args:
        file: an existing file.
        content: its new bytes; None removes it.
        within: the folder whose manifests are looked at, with those below it: an output folder.

    Raises:
        OSError: a file cannot be read or written.
    """
    before = file.read_bytes()
    twins = [other for other in _others(file, within, len(before)) if other.read_bytes() == before]
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    for manifest in _others(file, within):
        text = _text(manifest)
        mended = _change(file, manifest, twins, before, content).mend(text)
        if mended != text:
            replace_file(manifest, mended.encode() if mended.strip() else None, within)


def _others(file: Path, within: Path, size: int | None = None) -> Iterator[Path]:
    """The other files in a folder, those of one size where it is given."""
    for path in sorted(within.rglob("*")):
        is_other = path.is_file() and not path.is_symlink() and path != file
        if is_other and size in (None, path.stat().st_size):
            yield path


def _text(path: Path) -> str:
    """What stands in a small file of text; nothing of another."""
    try:
        return path.read_text(encoding="utf-8") if path.stat().st_size <= LARGEST else ""
    except UnicodeDecodeError:
        return ""


def _change(file: Path, manifest: Path, twins: list[Path], before: bytes, after: bytes | None) -> _Change:
    below = file.is_relative_to(manifest.parent)
    alike = [twin for twin in twins if not below or twin.is_relative_to(manifest.parent)]
    return _Change(
        names=file.relative_to(manifest.parent).parts if below else (),
        digests={
            hashlib.new(kind, before).hexdigest(): None if after is None else hashlib.new(kind, after).hexdigest()
            for kind in ALGORITHMS
        },
        size=len(before),
        new_size=None if after is None else len(after),
        must_be_named=bool(alike),
    )


@dataclass(frozen=True)
class _Change:
    """What became of a file, as one manifest sees it.

    Attributes:
        names: the folders and the name that lead to the file from the manifest; none where it lies elsewhere.
        digests: each of its old checksums, and the new one; None where the file is gone.
        size: in bytes, before.
        new_size: in bytes, now; None where the file is gone.
        must_be_named: another file has the same content, so that a checksum alone does not tell which is meant.
    """

    names: tuple[str, ...]
    digests: dict[str, str | None]
    size: int
    new_size: int | None
    must_be_named: bool

    def mend(self, text: str) -> str:
        """A manifest's text as it should be now; the same where it tells nothing of the file."""
        try:
            content = json.loads(text)
        except ValueError:
            return "".join(map(self._line, text.splitlines(keepends=True)))
        mended = self._value(content, (), vouched=False)
        if mended is _GONE:
            return ""
        return text if mended == content else json.dumps(mended, indent=2)

    def _line(self, line: str) -> str:
        for old, new in self.digests.items():
            if old in line and self._is_meant((line,)):
                return "" if new is None else line.replace(old, new)
        return line

    def _value(self, value: object, told: tuple[str, ...], *, vouched: bool) -> object:
        """A value as it should be now, or `_GONE`.

        Args:
            value: of the manifest.
            told: the names that lead to it and the texts beside them.
            vouched: the file's checksum stands beside it.
        """
        if isinstance(value, dict):
            return self._table(value, told)
        if isinstance(value, list):
            mended = [self._value(item, told, vouched=False) for item in value]
            return [item for item in mended if item is not _GONE]
        if isinstance(value, str):
            return self._digest(value, told)
        if type(value) is int and value == self.size and (vouched or self._is_named(told)):
            return _GONE if self.new_size is None else self.new_size
        return value

    def _table(self, table: dict[str, object], told: tuple[str, ...]) -> object:
        texts = {name: text for name, text in table.items() if isinstance(text, str)}
        told = (*told, *texts.values())
        vouched = any(self._digest(text, (*told, name)) != text for name, text in texts.items())
        mended = {name: self._value(value, (*told, name), vouched=vouched) for name, value in table.items()}
        kept = {name: value for name, value in mended.items() if value is not _GONE}
        return _GONE if len(kept) < len(mended) and self._is_named(told) else kept

    def _digest(self, text: str, told: tuple[str, ...]) -> object:
        for old, new in self.digests.items():
            if old in text and self._is_meant(told):
                return _GONE if new is None else text.replace(old, new)
        return text

    def _is_meant(self, told: tuple[str, ...]) -> bool:
        return not self.must_be_named or self._is_named(told)

    def _is_named(self, told: tuple[str, ...]) -> bool:
        """Whether every folder that leads to the file, and its name, stands in what is told."""
        ways = [re.compile(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])") for name in self.names]
        return bool(ways) and all(any(way.search(text) for text in told) for way in ways)
