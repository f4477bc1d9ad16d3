"""Pytest's side of GPU memory: tracing a trainer, whether it fits, what would help, and the pictures of it."""
