"""What torch did during a run: `hooks` writes it down inside the run, `timeline` reads it back.

`timeline` never imports torch. `hooks` does, and is loaded only inside a run.
"""
