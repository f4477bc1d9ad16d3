"""What several cases share."""

__all__ = [
    "bystander",
    "damaged_checkpoints",
    "damaged_data",
    "effects",
    "evaluations",
    "file_order",
    "long_run",
    "mismatched_models",
    "misspelt",
    "pruning",
    "relabelled",
    "silent",
    "termination",
    "unsaved",
]
