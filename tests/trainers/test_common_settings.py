from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from trainer_runs import ROOT

from trainers.code.transformer import Settings, main
from trainers.common import settings
from trainers.common.errors import InputError


@pytest.mark.parametrize("value", [0, -1, 1.5, "eight", True, None, float("nan"), 10**400])
def test_batch_size_must_be_a_whole_number_in_range(value: object) -> None:
    with pytest.raises(InputError) as caught:
        settings.check(Settings, {"batch_size": value})
    (line,) = caught.value.lines
    assert line.startswith("batch_size = ")
    assert line.endswith("is not a whole number from 1 to 65536")


@pytest.mark.parametrize("value", [0, -1e-4, float("nan"), float("inf"), 10, 0.1000001, "fast", True])
def test_learning_rate_must_be_a_number_in_range(value: object) -> None:
    with pytest.raises(InputError, match=r"learning_rate = .* is not a number over 0 and up to 0\.1"):
        settings.check(Settings, {"learning_rate": value})


def test_every_fault_is_reported_at_once() -> None:
    with pytest.raises(InputError) as caught:
        settings.check(Settings, {"batch_size": 0, "precision": "fp8", "learning_rat": 1e-4, "dropout": 1})
    assert list(caught.value.lines) == [
        "batch_size = 0 is not a whole number from 1 to 65536",
        'precision = "fp8" is not one of fp32, bf16, fp16',
        "dropout = 1 is not a number from 0 to below 1",
        "unknown setting learning_rat; did you mean learning_rate?",
    ]


def test_fields_are_checked_against_each_other() -> None:
    with pytest.raises(InputError, match="heads = 3 must divide hidden_size = 64"):
        settings.check(Settings, {"heads": 3})


def test_production_settings_are_within_range() -> None:
    chosen = settings.check(
        Settings,
        {
            "hidden_size": 768,
            "layers": 12,
            "heads": 12,
            "max_length": 512,
            "batch_size": 64,
            "precision": "bf16",
        },
    )
    assert chosen.described()["hidden_size"] == 768


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("bad.json", '{"a": 1,\n "b": }', "bad.json, line 2, column 7: bad JSON"),
        ("bad.toml", "a = 1\nb = = 2\n", "bad.toml, line 2, column 5: bad TOML"),
        ("open.toml", "a = [1", "open.toml, line 1, column 7: bad TOML"),
        ("twice.json", '{"seed": 1,\n "seed": 2}', "twice.json, line 2, column 2: seed is set twice"),
        ("list.json", "[1]", "must hold an object"),
        ("run.yaml", "a: 1", "suffix must be .toml or .json"),
        ("deep.json", "[" * 100_000, "bad JSON"),
    ],
)
def test_an_unreadable_settings_file_is_named_with_its_place(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        settings.read_file(tmp_path / name)
    assert message in caught.value.lines[0]
    assert str(tmp_path / name) in caught.value.lines[0]


def test_missing_settings_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.toml: No such file or directory"):
        settings.read_file(tmp_path / "nowhere.toml")


def test_flags_come_before_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.toml").write_text('batch_size = 4\nlearning_rate = "x"\n')
    file = str(tmp_path / "s.toml")
    code = main(["--settings", file, "--batch-size", "nine", "--output-dir", str(tmp_path / "o")])
    assert code == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2].split(" is ")[0] for line in lines] == [
        'batch_size = "nine"',
        'learning_rate = "x"',
    ]
    assert not (tmp_path / "o").exists()


def test_wrong_settings_and_paths_are_rejected_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom trainers.code.transformer import main\n"
        f"code = main(['--batch-size=0', '--data=/no/such.jsonl', '--output-dir', {str(tmp_path / 'o')!r}])\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)\nsys.exit(code)"
    )
    begun = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    assert "batch_size = 0" in ended.stderr
    assert "/no/such.jsonl: no such file" in ended.stderr
    assert time.monotonic() - begun < 5  # 0.3 s where nothing else runs
    assert not (tmp_path / "o").exists()


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all("--" + name.replace("_", "-") in text for name in Settings.model_fields)


def test_a_path_for_a_model_that_is_not_there(start: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert start(model="./no/such/model") == 2
    assert "model ./no/such/model: no such folder" in capsys.readouterr().err
