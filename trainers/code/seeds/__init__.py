"""One trainer with several seeds."""
