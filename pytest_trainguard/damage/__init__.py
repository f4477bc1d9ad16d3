"""What is done to bytes at rest: data, values, checkpoints, tokenizers, settings files."""

__all__ = [
    "checkpoints",
    "data_files",
    "manifests",
    "power",
    "queue_files",
    "row_values",
    "settings_file",
    "tokenizer",
    "weights",
    "wrong_values",
]
