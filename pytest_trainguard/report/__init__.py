"""What a preflight came to, from plain data: the terminal's summary, and the report for machines and for people."""
