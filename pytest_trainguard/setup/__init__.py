"""Before the first preflight: a trainer's table is written, and it is told what the harness makes of the program."""
