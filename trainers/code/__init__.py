"""Programs that learn from Python code: which of two functions has the wrong variable in it."""
