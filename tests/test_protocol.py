"""What crosses to a run and back: every message comes out as it went in, and options that do not exist are refused."""

import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from pytest_trainguard import faults
from pytest_trainguard.contract.outcome import Leftover
from pytest_trainguard.contract.queues import Queue
from pytest_trainguard.contract.settings import Field
from pytest_trainguard.contract.trainer import Run, Trainer
from pytest_trainguard.launch import calls, protocol
from pytest_trainguard.launch.protocol import (
    Call,
    Command,
    Description,
    Ended,
    Fork,
    Forked,
    Launch,
    Load,
    Loaded,
    Lost,
    MadeData,
    ProcessRequest,
    RunNote,
    RunOptions,
    RunRequest,
    Signal,
    Started,
    Train,
)

REQUEST = RunRequest(
    "tried", steps=3, settings={"lr": 0.1, "layers": [1, 2], "data.rows": None}, data=Path("/data/rows.jsonl"),
    fault=faults.kill(2), env={"A": "b"}, time_limit=1.5,
)  # fmt: skip
TRAIN = Train(REQUEST, "module:Class", Run({"lr": 0.1}, None, Path("/out"), 3, resume_from=Path("/out/step-2")))
CALL = Call(ProcessRequest("asked"), "module:function", {"command": "python x.py"}, {"rows": 3, "values": {"is": 1}})
COMMAND = Command(ProcessRequest("run"), ("queue", "--once"), Path("/queue"), None)


def launched(job):
    return Launch(job, Path("/root"), Path("/folder"), Path("/tmp/1"), 30.0, Path("/folder/disk"))


@pytest.mark.parametrize(
    "message",
    [
        Load(("torch", "json"), "module:Class"), Load(()), Loaded(None), Loaded("Traceback"), Fork(), Forked(7),
        launched(TRAIN), launched(CALL), launched(COMMAND), Signal(15, group=True), Started(8), Lost("why"),
        Ended(8, -9, 0.5, 1 << 20, "said\n", 5, False, (Leftover(9, "sleep", "zombie"),), True),
    ],
    ids=lambda message: type(message).__name__,
)  # fmt: skip
def test_a_message_comes_out_as_it_went_in(message):
    assert protocol.decode(protocol.encode(message)) == message


@pytest.mark.parametrize("body", [b"[]", b'{"is": "Nothing"}', b'{"is": "Started"}', b"\xff", b'{"pid": 3}'])
def test_what_is_no_message_is_refused(body):
    with pytest.raises(ValueError):  # noqa: PT011 (JSON's own among them)
        assert protocol.decode(body) is None


@pytest.mark.parametrize(
    "value",
    [
        RunNote(Path("/folder"), Path("/out"), None, faults.io_error("read", 2)),
        MadeData(None, "no such file", "Traceback"),
        Description(
            {"lr": 1}, {}, {"lr": 0.5}, (Field("lr", "float", {"gt": 0}), Field("on", "choice", choices=("a", 1))),
            {"learning_rate": "lr"}, 64, None, None, "settings.json", Queue("train {root}", priorities=("a", "b")),
            False, ("progress.csv",),
        ),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_left_in_files_comes_out_as_it_went_in(value):
    written = json.loads(json.dumps(protocol.to_json(value)))
    assert protocol.from_json(type(value), written) == value


def test_options_are_the_fields_of_a_request():
    hints, options = typing.get_type_hints(RunRequest), typing.get_type_hints(RunOptions)
    internal = {"did", "recorder", "states", "tell_modules", "anew", "closely", "rows", "seed", "still", "changes"}
    assert options == {field.name: hints[field.name] for field in fields(RunRequest) if field.name not in internal}


def test_an_option_that_does_not_exist_is_refused(guard):
    with pytest.raises(TypeError, match="a run has no option 'stepps'; there are steps, settings, "):
        guard.run("tried", stepps=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'stepps'"):
        RunRequest("tried", stepps=3)


@pytest.fixture
def trainer():
    return "tests.test_protocol:Told"


class Told(Trainer):
    rows = 7


@dataclass(frozen=True)
class Counted:
    by_step: Mapping[int, float]
    place: Path | None


def add_rows(trainer: Trainer, folder: Path, more: int = 1) -> Counted:
    return Counted({trainer.rows: float(more)}, folder / "rows")


def join(*, parts: list[Path]) -> dict[Path, str]:
    return {part: part.name for part in parts}


def test_a_function_is_called_with_what_it_was_given():
    call = calls.call_of(ProcessRequest("add_rows"), add_rows, "tests.test_protocol:Told", (None, Path("/a")), {})
    assert call.function == f"{__name__}:add_rows"
    there = protocol.decode(protocol.encode(launched(call))).job
    written = json.loads(json.dumps(protocol.to_json(calls.answer(there))))
    assert calls.result_of(add_rows, written) == Counted({7: 1.0}, Path("/a/rows"))


def test_one_that_is_about_no_trainer_too():
    call = calls.call_of(ProcessRequest("join"), join, None, (), {"parts": [Path("/a"), Path("/b")]})
    there = protocol.decode(protocol.encode(launched(call))).job
    written = json.loads(json.dumps(protocol.to_json(calls.answer(there))))
    assert calls.result_of(join, written) == {Path("/a"): "a", Path("/b"): "b"}


def test_arguments_that_it_does_not_take_are_refused_at_once():
    with pytest.raises(TypeError, match="missing a required argument: 'folder'"):
        calls.call_of(ProcessRequest("add_rows"), add_rows, "tests.test_protocol:Told", (None,), {})
