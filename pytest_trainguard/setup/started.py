"""`--trainguard-init` and `--trainguard-doctor` as pytest starts them: configured, within limits, closed at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pytest_trainguard import catalog
from pytest_trainguard.printing import printable
from pytest_trainguard.session.ini_file import read_list
from pytest_trainguard.session.options import find_gpu_limits
from pytest_trainguard.session.preflight import Preflight, get_preflight
from pytest_trainguard.setup.doctor import diagnose
from pytest_trainguard.setup.init import SetUpError, initialize
from pytest_trainguard.setup.screen import format_diagnosis, format_fault
from pytest_trainguard.subject.trainer_server import TrainerServer, ask_for_help
from pytest_trainguard.verdicts.errors import CannotJudge


@contextmanager
def _configured(config: pytest.Config) -> Iterator[Preflight]:
    """Pytest configured, but with nothing collected; what was started is ended."""
    config._do_configure()
    preflight = get_preflight(config)
    try:
        preflight.begin()
        yield preflight
    finally:
        preflight.end()


def run_init(config: pytest.Config) -> int:
    """Write a trainer's table; pytest's exit code."""
    with _configured(config) as preflight:
        return _guarded(lambda: _init(config, preflight))


def _init(config: pytest.Config, preflight: Preflight) -> int:
    def ask(command: str) -> tuple[int, str]:
        table = {"command": f"{command} {{output_dir}} {{max_steps}}"}  # of a trainer that only answers
        server = TrainerServer(preflight.launchpad.servers, "init", table)
        try:
            ended = ask_for_help(server, command)
        finally:
            server.close()
        return ended.exit, ended.output

    named = [entry.rpartition(":")[2] for entry in read_list(config, "trainguard_trainers")]
    given = _from_root(config, config.option.trainguard_init)
    for line in initialize(config.rootpath, given, ask, named):
        print(printable(line))
    return pytest.ExitCode.OK


def _from_root(config: pytest.Config, given: str) -> str:
    """A program's path from the project's root, where it was given from the folder that pytest was started in."""
    path = config.invocation_params.dir / given
    if not given or not path.is_file() or not path.is_relative_to(config.rootpath):
        return given
    return path.relative_to(config.rootpath).as_posix()


def run_doctor(config: pytest.Config) -> int:
    """Tell what is made of each trainer; pytest's exit code, 4 where a set-up is at fault."""
    with _configured(config) as preflight:
        return _guarded(lambda: _diagnose_all(config, preflight))


def _diagnose_all(config: pytest.Config, preflight: Preflight) -> int:
    limit = next(iter(find_gpu_limits(config)), None)
    cases = catalog.read_tests()
    at_fault = []
    for name in preflight.trainers:
        subject = preflight.find_subject(name)
        folder = subject.server.new_folder("cases")
        try:
            lines = format_diagnosis(diagnose(subject, folder, cases, limit))
        except CannotJudge as error:
            at_fault.append(name)
            lines = format_fault(name, str(error), error.evidence)
        print("\n".join(map(printable, lines)), flush=True)
    if at_fault:
        print("the set-up is at fault: mend it, then pytest --trainguard-doctor again")
        return pytest.ExitCode.USAGE_ERROR
    print("next: pytest -m preflight")
    return pytest.ExitCode.OK


def _guarded(work: Callable[[], int]) -> int:
    """Do it; what is wrong with the set-up is one block, and no traceback."""
    try:
        return work()
    except (SetUpError, CannotJudge) as error:
        raise pytest.UsageError(printable(str(error))) from None
    except KeyboardInterrupt:
        return pytest.ExitCode.INTERRUPTED
