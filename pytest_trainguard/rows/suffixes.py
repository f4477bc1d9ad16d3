"""What a file's suffix says of it: what torch saved in it, the form of its rows, whether it is text."""

from __future__ import annotations

__all__ = ["CSV", "JSON", "JSON_LINES", "PARQUET", "SAFETENSORS", "SAVED_BY_TORCH", "TENSOR_DATA", "TEXT", "WEIGHTS"]

SAVED_BY_TORCH = (".pt", ".pth", ".ckpt", ".bin")
SAFETENSORS = ".safetensors"
WEIGHTS = (SAFETENSORS, ".bin", ".pt", ".pth", ".ckpt")

JSON_LINES = (".jsonl", ".ndjson")
JSON = ".json"
CSV = ".csv"
PARQUET = ".parquet"
TENSOR_DATA = (".pt", ".pth")  # examples that torch saved, a file each

TEXT = (*JSON_LINES, JSON, CSV, ".tsv", ".txt", ".log", ".md")
