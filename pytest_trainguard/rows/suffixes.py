"""What a file's suffix says of it: what torch saved in it, the form of its rows, whether it is text."""

from __future__ import annotations

from pathlib import PurePath

__all__ = [
    "ARRAY", "CSV", "DATABASE", "DISTRIBUTED", "JSON", "JSON_LINES", "MEDIA", "PACKED", "PARQUET", "PLAIN_TEXT",
    "SAFETENSORS", "SAVED_BY_TORCH", "SHARD", "TENSOR_DATA", "TEXT", "TOKENS", "TSV", "WEIGHTS",
    "inside", "weights", "whole",
]  # fmt: skip

SAVED_BY_TORCH = (".pt", ".pth", ".ckpt", ".bin")
SAFETENSORS = ".safetensors"
WEIGHTS = (SAFETENSORS, ".bin", ".pt", ".pth", ".ckpt")
DISTRIBUTED = ".distcp"  # one process's share of a checkpoint, by torch.distributed.checkpoint

JSON_LINES = (".jsonl", ".ndjson")
JSON = ".json"
CSV = ".csv"
TSV = ".tsv"
PARQUET = ".parquet"
TENSOR_DATA = (".pt", ".pth")  # examples that torch saved, a file each
PLAIN_TEXT = ".txt"
ARRAY = ".npy"
TOKENS = ".bin"  # as data
SHARD = ".tar"
DATABASE = (".db", ".sqlite", ".sqlite3")
MEDIA = (  # an example each: pictures and sounds
    ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm",
    ".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".mp4", ".webm", ".avi",
)  # fmt: skip

PACKED = (".gz", ".bz2", ".xz", ".zst")  # after the suffix of what is packed

TEXT = (*JSON_LINES, JSON, CSV, TSV, PLAIN_TEXT, ".log", ".md")


def inside(file: PurePath) -> str:
    """The suffix of what is in a file, in lower case: `.jsonl` of `rows.jsonl` and of `rows.jsonl.gz`."""
    unpacked = file.with_suffix("") if file.suffix.lower() in PACKED else file
    return unpacked.suffix.lower()


def weights(file: PurePath) -> str:
    """The suffix that says that weights are in a file, `.pth` of `checkpoint.pth.tar` too, where they are no archive.

    Empty where there is none.
    """
    name = file.with_suffix("") if file.suffix == SHARD else file
    return name.suffix if name.suffix in WEIGHTS else ""


def whole(file: PurePath) -> str:
    """All of a name that says what is in the file: `.jsonl`, `.jsonl.gz`."""
    first = file.with_suffix("").suffix if file.suffix.lower() in PACKED else ""
    return first + file.suffix
