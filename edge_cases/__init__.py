"""The catalogue: nine modules, one function an edge case."""
