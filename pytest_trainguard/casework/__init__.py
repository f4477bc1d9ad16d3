"""What several cases share."""

__all__ = [
    "best_kept",
    "bystander",
    "damaged_checkpoints",
    "damaged_data",
    "effects",
    "evaluations",
    "file_order",
    "long_run",
    "loss_terms",
    "mismatched_models",
    "misspelt",
    "pruning",
    "relabelled",
    "rewritten",
    "silent",
    "termination",
    "unread",
    "unsaved",
]
