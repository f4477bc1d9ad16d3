"""A trainer as pytest sees it: `launchpad` has them all, `subject` starts runs, `reference` is the undisturbed one."""
