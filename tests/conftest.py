"""What the project's own tests share."""

import hypothesis

pytest_plugins = ["pytester"]

# The same values in every run: what passed here passes elsewhere too.
hypothesis.settings.register_profile("repeatable", derandomize=True, database=None)
hypothesis.settings.load_profile("repeatable")
