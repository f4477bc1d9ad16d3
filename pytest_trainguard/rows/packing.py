"""Files that are packed as a whole, told by their last suffix: gzip, bzip2, xz, and Zstandard where pyarrow is."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

from pytest_trainguard.rows import suffixes

__all__ = ["is_packed", "open_content", "read_content", "write_content"]


def is_packed(file: Path) -> bool:
    """Whether a file's name says that it is packed."""
    return file.suffix.lower() in suffixes.PACKED


def open_content(file: Path) -> BinaryIO:
    """A file's content, unpacked while it is read.

    Raises:
        OSError: it cannot be read. While it is read also EOFError, `lzma.LZMAError`, `zlib.error`.
        ImportError: what unpacks it is not installed.
    """
    packing = _PACKINGS.get(file.suffix.lower())
    return cast(BinaryIO, packing[0](file)) if packing else file.open("rb")


def read_content(file: Path) -> bytes:
    """All of a file's content, unpacked. Raises as `open_content`."""
    with open_content(file) as content:
        return content.read()


def write_content(file: Path, content: bytes) -> None:
    """Write a file, packed as its name says; the same content makes the same file.

    Raises:
        OSError: it cannot be written.
        ImportError: what packs it is not installed.
    """
    packing = _PACKINGS.get(file.suffix.lower())
    file.write_bytes(packing[1](content) if packing else content)


def _open_zstandard(file: Path) -> BinaryIO:
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError("reading Zstandard needs pytest-trainguard[parquet]") from error
    return cast(BinaryIO, io.BufferedReader(pyarrow.input_stream(str(file), compression="zstd")))


def _pack_gzip(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def _pack_zstandard(content: bytes) -> bytes:
    import pyarrow

    packed = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(packed, "zstd") as out:
        out.write(content)
    return bytes(packed.getvalue())


_WAYS: list[tuple[Callable[[Path], Any], Callable[[bytes], bytes]]] = [
    (gzip.open, _pack_gzip),
    (bz2.open, bz2.compress),
    (lzma.open, lzma.compress),
    (_open_zstandard, _pack_zstandard),
]
_PACKINGS = dict(zip(suffixes.PACKED, _WAYS, strict=True))
