"""Silent errors: what each of them shows in, judged by a recording that was made closely.

Pure functions of a `Look`: each returns what it found, and raises where nothing can be said.
"""

__all__ = [
    "accumulation",
    "averages",
    "changed",
    "gradients",
    "look",
    "losses",
    "modes",
    "movement",
    "order",
    "packs",
    "padding",
    "pairing",
    "reading",
    "reports",
    "rounding",
    "rows",
    "saves",
    "schedules",
    "seeds",
    "supervision",
    "traces",
    "validation",
]
