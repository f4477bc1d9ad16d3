"""One trainer as pytest sees it: its warm server, description, data and undisturbed run."""
