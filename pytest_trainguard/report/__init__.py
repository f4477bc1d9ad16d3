"""What a preflight came to: verdicts on pytest's reports, the terminal's summary, the machine-readable report."""
