"""What torch did during a run: `doors` and `writer` note it down inside the run, `timeline` reads it back.

`timeline` never imports torch. The other two do, and are loaded only inside a run.
"""
