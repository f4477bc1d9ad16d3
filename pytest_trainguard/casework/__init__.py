"""What several cases share."""

__all__ = [
    "bystander",
    "damaged_checkpoints",
    "damaged_data",
    "file_order",
    "long_run",
    "mismatched_models",
    "relabelled",
    "silent",
    "unsaved",
]
