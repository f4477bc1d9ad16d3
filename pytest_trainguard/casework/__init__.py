"""What several cases share."""

__all__ = ["bystander", "damaged_checkpoints", "damaged_data", "mismatched_models", "relabelled", "silent", "unsaved"]
