"""Training programs with exactly one defect each, and the sound one that they are made from.

A saboteur is a subclass of `sound.Sound` that overrides one method, in the way people really write it. It names the
case that must fail it and words that the finding must contain; `tests/test_proof.py` runs them all.
"""
