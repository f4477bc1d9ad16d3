"""The small parts, one by one: settings, samples, checkpoints, numbers, messages, command lines, tiny twins."""

import contextlib
import csv
import dataclasses
import enum
import fcntl
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Literal

import annotated_types
import pydantic
import pytest
from pytest_trainguard.edge_cases.test_process import NEGATIVE_TIME
from pytest_trainguard.edge_cases.test_training import _with_scaler

from pytest_trainguard import catalog, edge_case, linux
from pytest_trainguard.adapters import command, launchers, options, settings_files
from pytest_trainguard.casework.bystander import reassign_pid, start_bystander
from pytest_trainguard.contract import checkpoints, settings
from pytest_trainguard.contract.outcome import Outcome, exit_words, message_of
from pytest_trainguard.contract.trainer import Trainer, spec_of
from pytest_trainguard.memory import parse_budget
from pytest_trainguard.recorder.timeline import Recording
from pytest_trainguard.rows import samples
from pytest_trainguard.session import selection
from pytest_trainguard.verdicts import causes, kinds
from pytest_trainguard.verdicts.errors import CannotJudge, VerdictError


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Inner(pydantic.BaseModel):
    width: Annotated[int, pydantic.Field(ge=1, multiple_of=8)] = 8


class Model(pydantic.BaseModel):
    batch_size: int = pydantic.Field(8, ge=1, le=128)
    lr: Annotated[float, annotated_types.Gt(0), annotated_types.Lt(1)] = 0.1
    limit: Annotated[int, annotated_types.Interval(ge=2, le=5)] | None = None
    maybe: Annotated[float | None, pydantic.Field(ge=0)] = None
    flag: bool = False
    name: str = "x"
    mode: Literal["a", "b"] = "a"
    color: Color = Color.RED
    inner: Inner = Inner()
    either: int | str = 3
    items: list[int] = pydantic.Field(default_factory=list)


@dataclasses.dataclass
class Part:
    depth: Annotated[int, annotated_types.Ge(1)] = 2


@dataclasses.dataclass
class Data:
    batch_size: int = dataclasses.field(default=8, metadata={"ge": 1, "le": 128, "help": "rows"})
    lr: Annotated[float, annotated_types.Gt(0)] = 0.1
    width: Annotated[int, pydantic.Field(ge=4)] = 8
    part: Part = dataclasses.field(default_factory=Part)
    needed: str = dataclasses.field(kw_only=True)


def by_path(config):
    return {field.path: field for field in settings.fields_of(config)}


def test_fields_of_a_pydantic_model():
    found = by_path(Model)
    assert list(found) == [
        "batch_size", "lr", "limit", "maybe", "flag", "name", "mode", "color", "inner.width", "either", "items",
    ]  # fmt: skip
    kinds = "int float int float bool str choice choice int other other"
    assert [field.kind for field in found.values()] == kinds.split()
    assert found["batch_size"].bounds == {"ge": 1, "le": 128}
    assert found["batch_size"].range == "1 ≤ value ≤ 128"
    assert found["lr"].bounds == {"gt": 0, "lt": 1}
    assert found["lr"].range == "0 < value < 1"
    assert found["limit"].bounds == {"ge": 2, "le": 5}
    assert found["limit"].optional
    assert found["maybe"].bounds == {"ge": 0}
    assert found["maybe"].optional
    assert not found["batch_size"].optional
    assert found["mode"].choices == ("a", "b")
    assert found["mode"].range == "one of 'a', 'b'"
    assert found["color"].choices == ("red", "blue")
    assert found["inner.width"].bounds == {"ge": 1, "multiple_of": 8}
    assert found["name"].range == ""
    assert found["batch_size"].default == 8
    assert found["items"].default is None


def test_fields_of_a_dataclass():
    found = by_path(Data)
    assert list(found) == ["batch_size", "lr", "width", "part.depth", "needed"]
    assert found["batch_size"].bounds == {"ge": 1, "le": 128}
    assert found["lr"].bounds == {"gt": 0}
    assert found["width"].bounds == {"ge": 4}
    assert found["part.depth"].bounds == {"ge": 1}
    assert found["needed"].kind == "str"


def test_fields_of_a_mapping():
    found = by_path({"batch_size": 8, "on": True, "data": {"lr": 0.1, "names": ["a"]}, "name": "x", "none": None})
    assert {path: field.kind for path, field in found.items()} == {
        "batch_size": "int", "on": "bool", "data.lr": "float", "data.names": "other", "name": "str", "none": "other",
    }  # fmt: skip
    assert all(field.range == "" for field in found.values())
    assert settings.fields_of(None) == []
    assert settings.fields_of({}) == []


def test_settings_are_built():
    built = settings.build(Data, {"lr": 0.5, "part": {"depth": 7}, "needed": "x"})
    assert built == Data(lr=0.5, part=Part(7), needed="x")
    assert settings.build(Model, {"inner": {"width": 16}}).inner.width == 16
    assert settings.build({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 4}}) == {"a": 1, "b": {"c": 4, "d": 3}}
    assert settings.build(None, {"a": 1}) == {"a": 1}
    with pytest.raises(pydantic.ValidationError):
        settings.build(Model, {"batch_size": 0})
    with pytest.raises(TypeError, match="unknown"):
        settings.build(Data, {"unknown": 1})


def test_settings_are_merged():
    base = {"a": 1, "b": {"c": 2, "d": 3}}
    assert settings.merge(base, {"b.c": 4, "e.f.g": 5, "a": {"h": 6}}) == {
        "a": {"h": 6}, "b": {"c": 4, "d": 3}, "e": {"f": {"g": 5}},
    }  # fmt: skip
    assert base == {"a": 1, "b": {"c": 2, "d": 3}}, "not changed"


def test_roles():
    fields = settings.fields_of({"optim": {"lr": 0.1}, "data": {"bs": 4, "batch_size": 8}})
    assert settings.role("learning_rate", fields, {}).path == "optim.lr"
    assert settings.role("batch_size", fields, {}).path == "data.batch_size"
    assert settings.role("batch_size", fields, {"batch_size": "data.bs"}).path == "data.bs"
    assert settings.role("batch_size", fields, {"batch_size": "bs"}) is None, "a name that is told is the whole of it"
    assert settings.role("workers", fields, {}) is None


# --- samples


@pytest.fixture
def cut(tmp_path):
    (tmp_path / "piece").mkdir()

    def cut(name, content, rows=3):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return samples.cut_sample(path, tmp_path / "piece", rows)

    return cut


def test_jsonl(cut):
    piece = cut("a.jsonl", '{"x": 1}\n\n{"x": 2}\n{"x": 3}\nnot json at all\n')
    assert piece.name == "a.jsonl"
    assert piece.read_text() == '{"x": 1}\n{"x": 2}\n{"x": 3}\n'
    assert cut("b.ndjson", '{"x": "é"}').read_text("utf-8") == '{"x": "é"}\n', "its last line is closed"


def test_json(cut):
    assert json.loads(cut("a.json", "[1, 2, 3, 4]").read_text()) == [1, 2, 3]
    piece = cut("b.json", '\ufeff{"version": 2, "rows": [1, 2, 3, 4]}')
    assert json.loads(piece.read_text()) == {"version": 2, "rows": [1, 2, 3]}


def test_csv(cut):
    piece = cut("a.csv", 'name,text\n1,"two\nlines"\n2,b\n3,c\n4,d\n')
    with piece.open(newline="") as lines:
        assert list(csv.reader(lines)) == [["name", "text"], ["1", "two\nlines"], ["2", "b"], ["3", "c"]]


def test_parquet(cut, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(pyarrow.table({"x": list(range(10))}), tmp_path / "a.parquet")
    piece = samples.cut_sample(
        tmp_path / "a.parquet", tmp_path / "piece" if (tmp_path / "piece").exists() else tmp_path, 3
    )
    assert parquet.read_table(piece).to_pydict() == {"x": [0, 1, 2]}
    with pytest.raises(ValueError, match=r"b\.parquet: cannot be read"):
        cut("b.parquet", b"PAR1 no")


def test_a_folder(tmp_path):
    sample, piece = tmp_path / "sample", tmp_path / "piece"
    sample.mkdir()
    for number in range(5):
        (sample / f"{number}.pt").write_bytes(bytes([number]))
    (sample / "labels.csv").write_text("a\n1\n2\n3\n")
    (sample / "README.md").write_text("copied")
    cut = samples.cut_sample(sample, piece, 2)
    assert sorted(path.name for path in cut.iterdir()) == ["0.pt", "1.pt", "README.md", "labels.csv"]
    assert (cut / "labels.csv").read_text().split() == ["a", "1", "2"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", "", "a.jsonl: has no rows"),
        ("a.jsonl", '{"x": \n', "a.jsonl: cannot be read"),
        ("a.jsonl", b'"\xff"\n', "a.jsonl: cannot be read"),
        ("a.json", "[]", "a.json: has no rows"),
        ("a.json", "{}", "a.json: has no rows"),
        ("a.json", "42", "a.json: holds no list of rows"),
        ("a.json", "[1,", "a.json: cannot be read"),
        ("a.csv", "", "a.csv: has no rows"),
        ("a.csv", "name\n", "a.csv: has no rows"),
        ("a.csv", b"\xff\xfe\n", "a.csv: cannot be read"),
        ("a.xyz", "x", "a.xyz: unknown kind '.xyz'; known are JSONL"),
        ("data", "x", "data: unknown kind 'without suffix'"),
    ],
)
def test_bad_samples(cut, name, content, said):
    with pytest.raises(ValueError, match="sample ") as error:
        cut(name, content)
    assert said in str(error.value)


def test_missing_samples(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder"):
        samples.cut_sample(tmp_path / "nowhere", tmp_path, 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: holds no \.pt, JSONL"):
        samples.cut_sample(tmp_path / "empty", tmp_path / "piece", 3)


# --- what is half-written


@pytest.mark.parametrize("name", [".tmp-model", "model.tmp", "a/tmpx1y2", "temp/x", "_temp_1", "x.partial"])
def test_names_of_unfinished_work(name):
    assert kinds.TEMPORARY.search(name)


@pytest.mark.parametrize("name", ["base/chat_template.jinja", "templates/x", "attempt-1/model.pt", "model.pt"])
def test_names_of_finished_work(name):
    assert not kinds.TEMPORARY.search(name)


# --- checkpoints


def names(folder, *paths):
    for path in paths:
        target = folder / path
        if path.endswith("/"):
            target.mkdir(parents=True)
            (target / "weights.bin").touch()
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
    return [str(path.relative_to(folder)) for path in checkpoints.find(folder)]


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["checkpoint-10/", "checkpoint-9/"], ["checkpoint-9", "checkpoint-10"]),
        (["ckpt_4.pt", "ckpt_2.pt", "model.pt"], ["ckpt_2.pt", "ckpt_4.pt"]),
        (["run/version_0/checkpoints/epoch=0-step=4.ckpt"], ["run/version_0/checkpoints/epoch=0-step=4.ckpt"]),
        (["global_step40/", "step-5.safetensors"], ["step-5.safetensors", "global_step40"]),
        ([".tmp-checkpoint-4/", "checkpoint-4.tmp/", "tmp/checkpoint-2.pt", "checkpoint-2.partial.pt"], []),
        (["template-1/checkpoint-2.pt"], ["template-1/checkpoint-2.pt"]),
        (["checkpoint-2/", ".checkpoint-4/"], ["checkpoint-2"]),
        (["attempt-1/checkpoint-2.pt"], ["attempt-1/checkpoint-2.pt"]),
        (["filter3.pt", "footstep2.pt"], ["filter3.pt", "footstep2.pt"]),
        (["model.pt", "sub/model.safetensors"], ["model.pt", "sub/model.safetensors"]),
        (["checkpoint-2.txt", "log.json"], []),
        (
            ["c/epoch_010.ckpt", "c/epoch_009.ckpt", "c/last.ckpt"],
            ["c/epoch_009.ckpt", "c/epoch_010.ckpt", "c/last.ckpt"],
        ),
        (["epoch=2-step=8.ckpt", "epoch=9-step=4.ckpt"], ["epoch=9-step=4.ckpt", "epoch=2-step=8.ckpt"]),
        (["last.ckpt", "step=10.ckpt"], ["step=10.ckpt", "last.ckpt"]),
        (["checkpoint.pth.tar", "data.tar"], ["checkpoint.pth.tar"]),
        (["checkpoint-3.pth.tar", "iteration_4.pt"], ["checkpoint-3.pth.tar", "iteration_4.pt"]),
        (
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
            ["model-00001-of-00002.safetensors"],
        ),
        (["state/.metadata", "state/__0_0.distcp", "state/__1_0.distcp"], ["state"]),
        (["best/mp_rank_00_model_states.pt", "best/zero_pp_rank_0_mp_rank_00_optim_states.pt"], ["best"]),
        ([".metadata", "__0_0.distcp", "__1_0.distcp"], ["__0_0.distcp"]),
        ([], []),
    ],
)
def test_checkpoints_are_found(tmp_path, paths, found):
    assert names(tmp_path, *paths) == found


def test_a_copy_of_the_best_is_not_the_newest(tmp_path):
    for name in ("checkpoint.pth.tar", "model_best.pth.tar"):  # as timm's train.py leaves them
        (tmp_path / name).write_bytes(b"x")
    os.utime(tmp_path / "checkpoint.pth.tar", (0, 0))
    assert [path.name for path in checkpoints.find(tmp_path)] == ["model_best.pth.tar", "checkpoint.pth.tar"]


def test_a_link_to_the_newest_is_no_checkpoint_of_its_own(tmp_path):
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / "checkpoint-9").symlink_to(tmp_path / "checkpoint-2")
    assert checkpoints.find(tmp_path) == [tmp_path / "checkpoint-2"]
    assert checkpoints.find(tmp_path / "nowhere") == []


def test_the_shares_of_a_checkpoint_are_its_files(tmp_path):
    shares = [f"model-0000{share}-of-00002.safetensors" for share in (1, 2)]
    names(tmp_path, *shares, "adapter-00001-of-00001.safetensors")
    assert [file.name for file in checkpoints.files(tmp_path / shares[0])] == shares


def test_steps_and_files_of_checkpoints(tmp_path):
    assert checkpoints.step_of(Path("a/epoch=1-step=40.ckpt")) == 40
    assert checkpoints.step_of(Path("a/model.pt")) is None
    assert checkpoints.step_of(Path("epoch_000.ckpt")) is None  # an epoch is no step
    names(tmp_path, "checkpoint-2/")
    assert checkpoints.files(tmp_path / "checkpoint-2") == [tmp_path / "checkpoint-2/weights.bin"]
    assert checkpoints.files(tmp_path / "checkpoint-2/weights.bin") == [tmp_path / "checkpoint-2/weights.bin"]


# --- numbers, budgets, messages


def chosen_of(text):
    """The numbers and slugs that a choice names, of all that there could be."""
    chosen = selection.parse_cases(text)
    return {number for numbers in chosen.numbers for number in numbers}, set(chosen.slugs)


def test_cases_are_chosen():
    assert chosen_of("41, 64-66,41") == ({41, 64, 65, 66}, set())
    assert chosen_of("7-7") == ({7}, set())
    assert chosen_of("41,64-66,killed") == ({41, 64, 65, 66}, {"killed"})
    for text in ("", "1-", "-3", "3-1", "1,,2", "1.5", "a b"):
        with pytest.raises(ValueError, match=r"neither a number nor a range|names no case"):
            selection.parse_cases(text)


TOLD = {
    "slug": "killed",
    "title": "t",
    "verdict": "stops/recovers",
    "severity": "unclear",
    "brought_about": "",
    "expects": "",
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"slug": "Killed"}, "a slug is words in lower case joined by hyphens"),
        ({"slug": "41-killed"}, "a slug is words in lower case joined by hyphens"),
        ({"slug": "not_killed"}, "a slug is words in lower case joined by hyphens"),
        ({"category": "dta"}, "category 'dta' is not one of"),
        ({"severity": "bad"}, "severity 'bad' is not one of loses"),
        ({"verdict": "passes"}, "verdict kind 'passes' is not of rejects"),
    ],
)
def test_an_edge_case_is_held_to_its_words(change, said):
    def test():
        pass

    assert catalog.case_of(edge_case(**TOLD)(test).pytestmark).category == "own"
    with pytest.raises(ValueError, match=said):
        edge_case(**{**TOLD, **change})(test)


def of_module(name):
    """A test function that stands in a module of the catalogue's folder."""
    names = {}
    exec(compile("def test():\n    pass\n", catalog.catalogue_folder() / name, "exec"), names)
    return names["test"]


def test_the_module_says_the_category():
    case = catalog.case_of(edge_case(**TOLD)(of_module("test_process.py")).pytestmark)
    assert (case.category, case.family) == ("process", catalog.CATALOGUE)
    with pytest.raises(ValueError, match="in the catalogue the module says the category: leave category= out"):
        edge_case(**TOLD, category="data")(of_module("test_process.py"))
    with pytest.raises(ValueError, match=r"test_new\.py is of no category: name it in FAMILIES of catalog\.py"):
        edge_case(**TOLD)(of_module("test_new.py"))


def test_no_number_is_in_two_families():
    for one, other in itertools.combinations(catalog.FAMILIES, 2):
        assert not range(max(one.numbers[0], other.numbers[0]), min(one.numbers[-1], other.numbers[-1]) + 1)


def test_the_page_of_the_catalogue_is_what_the_cases_say():
    page = Path(__file__).parent.parent / "edge_cases" / "README.md"
    fresh = catalog.format_page(catalog.read_cases())
    assert page.read_text(encoding="utf-8") == fresh, f"{page} is stale: make catalogue"


def test_a_row_of_the_page():
    case = catalog.EdgeCase("a-b", "a|b", "data", "unclear", "stops", "c", "d, e", number=81)
    told = catalog.format_page([case])
    assert told.startswith("# The edge cases")
    assert "## Data" in told
    assert told.endswith("| 81 | `a-b` | a\\|b | c | d, e | stops | unclear |\n")


def test_the_catalogue_is_in_order():
    tests = catalog.read_tests()
    numbers = [case.number for case in tests if case.number is not None]
    assert numbers == sorted(set(numbers))
    assert len({case.slug for case in tests}) == len(tests)
    categories = list(catalog.CATEGORIES)
    for case, test in tests.items():
        assert test.__name__ == f"test_{case.slug.replace('-', '_')}", "a test is named like its case"
        assert case.number is None or case.number in case.family.numbers
        if case.number is not None and case.number <= 80:
            assert case.category == categories[(case.number - 1) // 10], "ten cases of each category"


@pytest.mark.parametrize(
    ("text", "size", "share"),
    [
        ("40GB", 40 * 10**9, None),
        ("40 GiB", 40 * 2**30, None),
        ("1.5gib", 3 * 2**29, None),
        ("42949672960", 42949672960, None),
        ("a100-40gb", int(39.5 * 2**30), None),
        ("H100", int(79.11 * 2**30), None),
        ("80%", None, 0.8),
    ],
)
def test_budgets(text, size, share):
    budget = parse_budget(text)
    assert (budget.text, budget.size, budget.share) == (text, size, share)


@pytest.mark.parametrize("text", ["", "GB", "0", "0%", "101%", "-1", "4GX", "1e9", "forty", "b200"])
def test_bad_budgets(text):
    with pytest.raises(ValueError, match="is no budget"):
        parse_budget(text)


def test_messages():
    output = (
        "epoch 1\n 10%|#\r 50%|##\r100%|###\nTraceback (most recent call last):\n"
        '  File "a.py", line 1, in <module>\n    secret = 3\nValueError: bad\n  details\nafter\n'
    )
    assert message_of(output) == "epoch 1\n100%|###\nValueError: bad\n  details\nafter"
    assert message_of("") == ""
    assert exit_words(3) == "exit 3"
    assert exit_words(-9) == "killed by SIGKILL"
    assert exit_words(-63) == "killed by signal 63"


ACCELERATE = """Traceback (most recent call last):
  File "/venv/bin/accelerate", line 6, in <module>
    sys.exit(main())
  File "/venv/lib/python3.11/site-packages/accelerate/commands/launch.py", line 999, in simple_launcher
    raise subprocess.CalledProcessError(returncode=process.returncode, cmd=cmd)
subprocess.CalledProcessError: Command '['/venv/bin/python', 'train.py', '--data', '/rows.jsonl']' returned non-zero
"""
TORCHRUN = """E1130 04:37:24.939000 10246 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: 1)
Traceback (most recent call last):
  File "/venv/lib/python3.11/site-packages/torch/distributed/run.py", line 1028, in main
    run(args)
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train.py FAILED
  exitcode  : 1 (pid: 10251)
"""
OWN = 'Traceback (most recent call last):\n  File "/train.py", line 3, in <module>\nValueError: bad\n'


def make_outcome(output="", **values):
    usual = {
        "exit": 1,
        "recording": Recording([]),
        "output_dir": Path("out"),
        "before": {},
        "after": {},
        "seconds": 1.0,
    }
    others = {"did": "", "output_bytes": 0, "peak_rss": 0, "leftovers": (), "timed_out": False, "stack": "", "pid": 1}
    return Outcome(output=output, **{**usual, **others, **values})


@pytest.mark.parametrize("launcher", [ACCELERATE, TORCHRUN])
def test_a_launchers_own_words_are_no_message(launcher):
    own = OWN if launcher == ACCELERATE else "".join(f"[rank0]: {line}\n" for line in OWN.splitlines())
    failed = make_outcome(output=f"epoch 1\n{own}{launcher}")
    assert failed.message == "epoch 1\nValueError: bad"
    assert failed.complaint == "ValueError: bad"
    crash = causes.find_crash(failed)
    assert crash is not None
    assert crash.key == "raises:ValueError@train.py:3"
    assert message_of(f"epoch 1\n{launcher}").strip() == "epoch 1"
    hydra = f"Error executing job with overrides: ['data=/rows.jsonl']\n{own}"
    assert make_outcome(output=hydra).complaint == "ValueError: bad"
    alone = launcher.replace("CalledProcessError", "ValueError").replace("ChildFailedError", "ValueError")
    assert "ValueError" in message_of(alone), "the launcher itself failed"


def test_specs():
    class Mine(Trainer):
        pass

    assert spec_of(Mine) == f"{__name__}:test_specs.<locals>.Mine"
    assert spec_of("a:B") == "a:B"
    assert spec_of({"command": "x"}) == {"command": "x"}
    for wrong in (3, object, None):
        with pytest.raises(TypeError, match="a trainer is a Trainer subclass"):
            spec_of(wrong)


# --- command lines

VALUES = {
    "config": "c d.yaml",
    "data": None,
    "output_dir": Path("/out"),
    "max_steps": 3,
    "resume_from": None,
    "seed": 0,
}


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ("python t.py --out {output_dir} -n {max_steps}", ["python", "t.py", "--out", "/out", "-n", "3"]),
        ("t --config {config}", ["t", "--config", "c d.yaml"]),
        ("t --resume {resume_from} --x", ["t", "--x"]),
        ("t --resume={resume_from} --x", ["t", "--x"]),
        ("t {data} {output_dir}", ["t", "/out"]),
        ("t --data {data} --resume {resume_from}", ["t"]),
        ("t 'a b' step={max_steps}/{seed}", ["t", "a b", "step=3/0"]),
    ],
)
def test_arguments(text, argv):
    assert command.arguments(text, VALUES) == argv


@pytest.mark.parametrize(
    "text", ["plain/path.jsonl", "a b", "it's", 'so "quoted"', "two\nlines", "a,b", 'x\\"y', "end\\"]
)
def test_hydra_reads_what_is_quoted_for_it(text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = OverridesParser.create().parse_override(f"data={options.in_hydra(text)}")
    assert override.value() == text


def test_a_path_is_quoted_where_settings_are_key_and_value():
    values = {"data": Path("it's, here.jsonl"), "lr": 1e-05}
    said = command.arguments("train.py +a.b={data} lr={lr} --data {data}", values, options.in_yaml)
    assert said == ["train.py", '+a.b="it\'s, here.jsonl"', "lr=1.0e-05", "--data", "it's, here.jsonl"]


@pytest.mark.parametrize("suffix", [".json", ".toml", ".yaml", ".yml"])
def test_settings_files(tmp_path, suffix):
    path, values = tmp_path / f"a{suffix}", {"lr": 0.5, "on": True, "name": "é", "model": {"layers": [1, 2]}}
    settings_files.write_settings(path, values)
    assert settings_files.read_settings(path) == values
    settings_files.write_settings(path, {"a": None, "b": {"c": None, "d": 1}})
    read = settings_files.read_settings(path)
    assert read == ({"b": {"d": 1}} if suffix == ".toml" else {"a": None, "b": {"c": None, "d": 1}})


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.ini", "x", "unknown kind '.ini'; known are .json, .toml, .yaml"),
        ("a.json", "[1]", "holds no table of names and values"),
        ("a.yaml", "", "holds no table"),
        ("a.json", "{", "a.json: "),
        ("a.toml", "a = ", "a.toml: "),
        ("a.yaml", "a: [", "a.yaml: "),
        ("a.yaml", "\0", "a.yaml: "),
    ],
)
def test_bad_settings_files(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="settings ") as error:
        settings_files.read_settings(tmp_path / name)
    assert said in str(error.value)


def test_which_python_goes_on_in_the_warm_process():
    for program in ("python", "python3", "python3.11", sys.executable):
        assert launchers.is_this_python(program)
    for program in ("sh", "torchrun", "ipython", "/opt/other/bin/python", "python3-config"):
        assert not launchers.is_this_python(program)


# --- tiny twins: of the real architectures, built and run

TWINS = """
import torch, transformers as t
from pytest_trainguard import tiny_twin

ids = torch.randint(0, 50, (2, 6))
text = {"input_ids": ids}
image = {"pixel_values": torch.rand(2, 3, 224, 224)}
CASES = [
    (t.BertConfig, t.BertModel, text), (t.RobertaConfig, t.RobertaModel, text), (t.GPT2Config, t.GPT2Model, text),
    (t.DistilBertConfig, t.DistilBertModel, text), (t.ViTConfig, t.ViTModel, image),
    (t.T5Config, t.T5Model, {**text, "decoder_input_ids": ids}), (t.BartConfig, t.BartModel, text),
    (lambda: t.LlamaConfig(num_attention_heads=32, num_key_value_heads=8), t.LlamaModel, text),
    (t.Qwen2Config, t.Qwen2Model, text), (t.OPTConfig, t.OPTModel, text),
    (t.CLIPConfig, t.CLIPModel, {**text, **image}),
]
for make, model, inputs in CASES:
    config = make()
    before = config.to_dict()
    twin = tiny_twin(config)
    assert config.to_dict() == before, f"{type(config).__name__} was changed"
    assert type(twin) is type(config)
    built = model(twin).eval()
    built(**inputs)
    count = sum(p.numel() for p in built.parameters())
    print(type(config).__name__, count)
    assert count < 5_000_000, (type(config).__name__, count)
    inner = getattr(twin, "text_config", twin)
    vocabulary = getattr(getattr(config, "text_config", config), "vocab_size", None)
    assert getattr(inner, "vocab_size", None) == vocabulary
    assert inner.num_hidden_layers == 2, type(config).__name__
    assert inner.hidden_size == 32
llama = tiny_twin(t.LlamaConfig(num_attention_heads=32, num_key_value_heads=8), layers=3, width=64, heads=4)
assert (llama.num_hidden_layers, llama.hidden_size) == (3, 64)
assert (llama.num_attention_heads, llama.num_key_value_heads) == (4, 4)
assert llama.head_dim == 16
"""


def test_tiny_twins():
    done = subprocess.run([sys.executable, "-c", TWINS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 11


# --- what the cases of the system stand on


@pytest.mark.parametrize(
    "text",
    [
        '{"seconds": -86399.2}',
        "took -86399.2 s",
        "elapsed=-86399",
        "step_seconds = -3",
        "cache age: -1.5 h",
        "-86399 s left",
        "eta -4 minutes",
        '"samples_per_second": -0.001',
    ],
)
def test_negative_times_are_found(text):
    assert NEGATIVE_TIME.search(text)


@pytest.mark.parametrize(
    "text",
    [
        "loss: -0.3",
        "beta: -1",
        "average -2.0",
        "page -3",
        "checkpoint-8 saved",
        "2026-11-24 22:01",
        "step-8 s",
        "message: -1",
        "8/8 [-1:59:59<?, ?it/s]",
        '{"seconds": 0.5, "loss": -1}',
        "theta = -0.5",
        "1e-5 seconds",
        "-3 samples",
        "usage -1",
    ],
)
def test_other_negative_numbers_are_none(text):
    assert not NEGATIVE_TIME.search(text)


def test_a_bystander_lives_and_holds_its_locks(tmp_path):
    file = tmp_path / "held"
    file.write_text("x")
    with start_bystander(file) as pid, file.open("r+b") as ours:
        os.kill(pid, 0)
        for lock in (fcntl.flock, fcntl.lockf):
            with pytest.raises(BlockingIOError):
                lock(ours, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with file.open("r+b") as ours:
        fcntl.flock(ours, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_pid_is_given_away_in_notes_alone(tmp_path):
    notes = {"lock": b"41\n", "run.json": b'{"pid": 41, "launcher": 40, "step": 410}', "state.pt": b"41\0"}
    for name, content in notes.items():
        (tmp_path / name).write_bytes(content)
    reassign_pid(tmp_path, (41, 40), 7)
    assert {name: (tmp_path / name).read_bytes() for name in notes} == {
        "lock": b"7\n",
        "run.json": b'{"pid": 7, "launcher": 7, "step": 410}',
        "state.pt": b"41\0",
    }


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root, to mount")
def test_a_broken_file_gives_the_kernels_own_error(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("{}\n")
    program = f"""
from pathlib import Path
from pytest_trainguard import linux
file = Path({str(file)!r})
if not linux.break_file(file):
    raise SystemExit("may not mount here")
try:
    file.read_bytes()
except OSError as error:
    raise SystemExit(error.errno)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 5 or "may not mount" in done.stderr  # EIO
    assert file.read_text() == "{}\n"  # nobody else sees it


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="the system does not tell")
def test_a_process_has_a_child_until_it_has_taken_note_of_its_end():
    program = """
import os
from pytest_trainguard import linux
told, (reader, writer) = [linux.is_childless()], os.pipe()
child = os.fork()
if not child:
    os.read(reader, 1)
    os._exit(0)
told.append(linux.is_childless())
os.write(writer, b"x")
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
told.append(linux.is_childless())
os.waitpid(child, 0)
print(told + [linux.is_childless()])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[True, False, False, True]\n", done.stderr


@pytest.mark.skipif(not linux.heap(), reason="the C library does not tell")
def test_the_heap_is_told_to_the_byte():
    before = linux.heap()
    held = bytearray(1 << 20)
    assert linux.heap() - before >= len(held)
    del held
    assert linux.heap() - before < 1 << 16


def test_a_long_line_without_an_end_is_read_in_no_time():
    began = time.process_time()
    assert message_of("x" * 300_000) == "x" * 300_000
    assert message_of("a\rb\r\nc\r\rd\re") == "b\ne"
    assert time.process_time() - began < 1.0


def test_ranges_are_read_in_the_spellings_that_people_use():
    import attrs

    @dataclasses.dataclass
    class Stated:
        a: int = dataclasses.field(default=1, metadata={"min": 1, "max": 8})
        b: float = dataclasses.field(default=0.5, metadata={"bounds": (0.0, 1.0)})
        c: float = dataclasses.field(default=0.5, metadata={"exclusive_minimum": 0, "upper": 2})
        d: str = dataclasses.field(default="x", metadata={"choices": ["x", "y"]})

    @attrs.define
    class Validated:
        a: int = attrs.field(default=1, validator=attrs.validators.and_(attrs.validators.ge(1), attrs.validators.lt(9)))
        d: str = attrs.field(default="x", validator=attrs.validators.in_(["x", "y"]))

    stated = {field.path: field for field in settings.fields_of(Stated)}
    assert stated["a"].bounds == {"ge": 1, "le": 8}
    assert stated["b"].bounds == {"ge": 0.0, "le": 1.0}
    assert stated["c"].bounds == {"gt": 0, "le": 2}
    assert (stated["d"].kind, stated["d"].choices) == ("choice", ("x", "y"))
    validated = {field.path: field for field in settings.fields_of(Validated)}
    assert validated["a"].bounds == {"ge": 1, "lt": 9}
    assert (validated["d"].kind, validated["d"].choices) == ("choice", ("x", "y"))


def test_logs_of_frameworks_are_nothing_left():
    names = (
        ".hydra/config.yaml", "train.log", "tb/events.out.tfevents.1.host", "mlruns/0/meta.yaml", "mine.csv",
        "checkpoint-2/", "checkpoint-2/state.pt",
    )  # fmt: skip
    left = make_outcome(after=dict.fromkeys(names, (1, "x")), logs=("*.csv",))
    assert left.left() == ["checkpoint-2/state.pt"]


@pytest.mark.parametrize(("launched", "said", "told"), [
    ("fp32", "fp16 mixed precision requires a GPU (not 'cpu').", None),
    ("fp16", "fp16 mixed precision requires a GPU (not 'cpu').", "with precision = fp16, as it is launched, it"),
    ("fp16", "an unknown error", "the run ended before that"),
])  # fmt: skip
def test_half_precision_that_cannot_be_had_without_a_gpu(launched, said, told):
    """It is no matter where the program is launched without it; else it is said where to try it."""

    def refused(*args, **options):
        raise CannotJudge("the run ended before that", said)

    role = SimpleNamespace(role=lambda name: "the precision", production=lambda field: launched)
    guard = SimpleNamespace(subject=SimpleNamespace(settings=role))
    expected = contextlib.nullcontext() if told is None else pytest.raises(VerdictError, match=told)
    with expected:
        _with_scaler(refused, guard, {"precision": "fp16"})
