"""Python code as a graph, and the network that reads it."""
