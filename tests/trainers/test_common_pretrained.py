from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from trainer_runs import TINY, losses

from trainers.common import pretrained
from trainers.common.errors import InputError


@pytest.fixture(scope="module")
def weights(rows_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as `save_pretrained` makes it: no manifest, a head of three classes."""
    from transformers import AutoConfig, AutoTokenizer, RobertaForSequenceClassification

    from trainers.code.transformer import launch

    run, folder = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("model")
    assert launch(TINY, data=rows_file, output_dir=run, max_steps=1) == 0
    config = AutoConfig.from_pretrained(run / "checkpoint-1", num_labels=3)
    RobertaForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(run / "checkpoint-1").save_pretrained(folder)
    return folder


@pytest.fixture
def model(weights: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(weights, tmp_path / "model"))


def test_pretrained_weights_are_trained_and_resumed(
    start: Callable[..., int], model: Path, out: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    assert start(model=str(model), output_dir=whole, max_steps=4) == 0
    assert start(model=str(model), max_steps=2) == 0
    assert start(model=str(model), max_steps=4, resume_from=out) == 0
    assert losses(out) == losses(whole)


@pytest.mark.parametrize("how", ["cut", "header", "exponent", "gone"])
def test_damaged_weights_are_rejected(
    start: Callable[..., int], model: Path, out: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    file = model / "model.safetensors"
    content = bytearray(file.read_bytes())
    if how == "cut":
        content = content[: len(content) // 2]
    elif how == "header":
        content[9] ^= 0x40
    elif how == "exponent":
        content[-1] ^= 0x40  # the highest bit of a float's exponent
    file.write_bytes(content)
    if how == "gone":
        file.unlink()
    assert start(model=str(model)) == 2
    assert str(model) in capsys.readouterr().err
    assert not out.exists()


def test_a_checkpoint_as_a_model_is_held_against_its_manifest(
    start: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(output_dir=tmp_path / "first", max_steps=2) == 0
    folder = tmp_path / "first" / "checkpoint-2"
    assert start(model=str(folder), max_steps=2) == 0
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-3] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    assert start(model=str(folder), output_dir=tmp_path / "second") == 2
    assert "model.safetensors: checksum differs" in capsys.readouterr().err


def test_a_vocabulary_larger_than_the_embedding(
    start: Callable[..., int], model: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    size = len(tokenizer["model"]["vocab"])
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": size, "content": "<new>"})
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert start(model=str(model)) == 2
    assert f"tokenizer has {size + 1} tokens, the model's embedding {size}" in capsys.readouterr().err
    assert not out.exists()


def test_more_tokens_than_positions(start: Callable[..., int], model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(model=str(model), max_length=65) == 2
    assert "max_length = 65: the model has positions for 64 tokens" in capsys.readouterr().err


def test_an_unknown_name_is_rejected_without_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_session", lambda: time.sleep(20))  # a network that never answers
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"model nobody/no-such-model: .* the model hub does not answer"):
        pretrained.locate("nobody/no-such-model")
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("name", ["./x", "/x/y", "~/no/such", "a/b/c", "x/", "a\0b", "", " "])
def test_what_can_only_be_a_path_is_not_looked_up(name: str) -> None:
    with pytest.raises(InputError):
        pretrained.require_local(name)


def test_what_may_be_a_name_is_left_for_later() -> None:
    pretrained.require_local("roberta-base")
    pretrained.require_local("microsoft/codebert-base")
    with pytest.raises(InputError, match="no name of a model"):
        pretrained.locate("no name!")
