"""How a run becomes a process: a warm server forks a supervisor, the supervisor forks the run.

`client` is pytest's side; `server`, `supervisor` and `child` are the other. `protocol` is what they say, `wire` moves
it. In the run's process, `jobs` trains, and `calls` answers for a function: one of `questions`, or any other.
"""
