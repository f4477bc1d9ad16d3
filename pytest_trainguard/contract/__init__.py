"""What a team writes and what comes back: the `Trainer`, its settings, checkpoints and queue; a run's `Outcome`."""
