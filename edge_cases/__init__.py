"""The catalogue: eight modules, one function an edge case."""
