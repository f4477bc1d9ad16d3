"""What a fake device cannot always bear: it works, or the verdict is unknown, with the reason."""

import pytest

from pytest_trainguard.memory.answers.tracing import Tracing


@pytest.fixture
def trace(tracing):
    return lambda oddity: tracing("odd:Odd").trace({"oddity": oddity})


@pytest.mark.parametrize(
    "oddity", ["none", "values", "pinned", "asks", "streams", "statistics", "parallel", "copies", "early"]
)
def test_works(trace, oddity):
    found = trace(oddity)
    assert found.unknown is None
    weights = sum(e.size for e in found.events if e.category == "weight" and e.kind == "alloc")
    assert weights == 4 * (64 * 64 + 64 + 64 * 8 + 8)
    assert 2 * weights == sum(e.size for e in found.events if e.category == "optimizer state" and e.kind == "alloc")


@pytest.mark.parametrize(
    ("oddity", "note"),
    [("convolution", "workspace for each convolution"), ("recurrent", "cell by cell"), ("layers", None)],
)
def test_works_and_says_what_is_less_certain(trace, oddity, note):
    found = trace(oddity)
    assert found.unknown is None
    assert [note in said for said in found.notes] == [True] * bool(note)


def test_a_command_line_is_traced_where_this_python_runs_it(pad):
    script = "python tests/memory/programs/script.py --steps {max_steps} --out {output_dir}"
    found = Tracing(pad.subject("script", {"command": script})).trace()
    assert found.unknown is None
    assert sum(e.size for e in found.events if e.category == "weight" and e.kind == "alloc") == 4 * (512 * 512 + 512)


def test_streams_are_noted(trace):
    assert {event.stream for event in trace("streams").events} > {0}


def test_compiled_code_is_traced_as_it_stands_and_that_is_said(trace):
    found = trace("compile")
    assert found.unknown is None
    assert [note.split(",")[0] for note in found.notes] == ["torch.compile was left out"]


@pytest.mark.parametrize(
    ("oddity", "reason"),
    [
        ("smi", "nvidia-smi"),
        ("exits", "exit 1 after 0 optimizer steps: no licence for this dongle"),
        ("vanishes", "the process ended by itself, exit 7, and left no trace"),
        ("becomes", "torchrun: the program goes on in a process that this Python cannot see into"),
        ("extension", "oddlib::twice"),
        ("shapeless", r"aten::geqrf \(forward\)"),
        ("graph", "CUDA graphs"),
    ],
)
def test_is_unknown_with_the_reason(trace, oddity, reason):
    import re

    found = trace(oddity)
    assert found.unknown is not None
    assert re.search(reason, found.unknown), found.unknown
    assert "\n" not in found.unknown


def test_a_router_is_taken_to_choose_each_expert_equally_often(trace):
    found = trace("router")
    assert found.unknown is None
    assert any("balanced routing" in note for note in found.notes)
