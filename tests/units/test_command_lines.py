"""Trainers' specifications, and their settings as options and as files."""

import sys
from pathlib import Path

import pytest

from pytest_trainguard.adapters import command, launchers, options, settings_files
from pytest_trainguard.contract.trainer import Trainer, spec_of


def test_specs():
    class Mine(Trainer):
        pass

    assert spec_of(Mine) == f"{__name__}:test_specs.<locals>.Mine"
    assert spec_of("a:B") == "a:B"
    assert spec_of({"command": "x"}) == {"command": "x"}
    for wrong in (3, object, None):
        with pytest.raises(TypeError, match="a trainer is a Trainer subclass"):
            spec_of(wrong)


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
