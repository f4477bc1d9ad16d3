"""What the project's own tests share."""

import os

import pytest

from pytest_trainguard.launch import client
from tests import warm_start
from tests.projects import NURSERY

START_INTERPRETER = client.start_interpreter

pytest_plugins = ["pytester", "tests.proof_table"]

# Where these tests themselves run in GitHub Actions, the preflights that they start are none of that job's.
for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"):
    os.environ.pop(name, None)


def pytest_configure():
    warm_start.install(lambda: NURSERY.environment[warm_start.ADDRESS])


@pytest.fixture
def cold(monkeypatch):
    """Base servers of this process are interpreters of their own, as they are for a user."""
    monkeypatch.setattr(client, "start_interpreter", START_INTERPRETER)
