"""What the project's own tests share."""

pytest_plugins = ["pytester", "tests.proof_table"]
