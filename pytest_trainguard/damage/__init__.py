"""What is done to bytes at rest: data, values, checkpoints, tokenizers, settings files."""
