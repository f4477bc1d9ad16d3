"""What a file's suffix says of it: what torch saved in it, the form of its rows, whether it is text."""

from __future__ import annotations

__all__ = [
    "ARRAY", "CSV", "DATABASE", "JSON", "JSON_LINES", "MEDIA", "PARQUET", "PLAIN_TEXT", "SAFETENSORS",
    "SAVED_BY_TORCH", "SHARD", "TENSOR_DATA", "TEXT", "TOKENS", "TSV", "WEIGHTS",
]  # fmt: skip

SAVED_BY_TORCH = (".pt", ".pth", ".ckpt", ".bin")
SAFETENSORS = ".safetensors"
WEIGHTS = (SAFETENSORS, ".bin", ".pt", ".pth", ".ckpt")

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

TEXT = (*JSON_LINES, JSON, CSV, TSV, PLAIN_TEXT, ".log", ".md")
