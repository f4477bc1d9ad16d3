"""What the project's own tests share."""

import os

pytest_plugins = ["pytester", "tests.proof_table"]

# Where these tests themselves run in GitHub Actions, the preflights that they start are none of that job's.
for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"):
    os.environ.pop(name, None)
