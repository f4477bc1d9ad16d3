"""How a run becomes a process: a warm server forks a supervisor, the supervisor forks the run.

`client` is pytest's side, `server`, `supervisor` and `child` are the other; `wire` is what they say.
"""
