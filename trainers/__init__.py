"""Real training programs; importing this package imports no torch."""
