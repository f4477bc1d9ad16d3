"""The chat trainer: what it learns from, where it goes on, how it ends, and what it leaves."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_runs import ROOT, left_behind, losses, tree

from trainers.chat import lora, resume, syllogisms, tiny_llama, trainer
from trainers.chat.settings import Settings
from trainers.chat.trainer import ChatTrainer
from trainers.chat.validation import Validation
from trainers.common import checkpoint, status
from trainers.common.errors import InputError

TINY: dict[str, Any] = {
    "hidden_size": 32,
    "layers": 1,
    "heads": 2,
    "max_length": 128,
    "lora_rank": 4,
    "lora_alpha": 8,
    "batch_size": 4,
    "learning_rate": 2e-3,
    "warmup_steps": 2,
    "max_epochs": 3,
    "log_every": 1,
    "save_every": 2,
    "eval_every": 1000,
    "answered_rows": 4,
    "answer_tokens": 4,
    "device": "cpu",
}
Start = Callable[..., int]


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chats") / "chats.jsonl"
    syllogisms.write_jsonl(path, 30, "hard", seed=1)
    return path


@pytest.fixture
def start(chats: Path, out: Path) -> Start:
    """Run the program in this process: keywords of `launch`, all others are settings."""

    def run(**keywords: Any) -> int:
        places = {"data": chats, "output_dir": out}
        names = ("data", "output_dir", "max_steps", "resume_from", "seed")
        places |= {name: keywords.pop(name) for name in names if name in keywords}
        return lora.launch({**TINY, **keywords}, **places)  # type: ignore[arg-type]

    return run


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter" / "adapter_model.safetensors")


def close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], tolerance: float) -> bool:
    return first.keys() == second.keys() and all(
        torch.allclose(first[name], second[name], atol=tolerance, rtol=0) for name in first
    )


# ---- what it learns from


def test_accumulation_equals_the_big_batch(start: Start, tmp_path: Path) -> None:
    """Rows of different lengths, and a last window that is short: 27 rows are 3 windows of 8 and one of 3."""
    common = {"max_epochs": 1, "validation_fraction": 0.1, "save_every": 1000}
    for name, sizes in {"big": (8, 1), "small": (2, 4), "odd": (4, 2)}.items():
        chosen = {"batch_size": sizes[0], "gradient_accumulation": sizes[1], **common}
        assert start(output_dir=tmp_path / name, **chosen) == 0
    ((_, big),) = checkpoint.numbered(tmp_path / "big")
    for name in ("small", "odd"):
        ((_, other),) = checkpoint.numbered(tmp_path / name)
        assert other.name == big.name
        assert close(adapter(big), adapter(other), 2e-5)
        for (step, ours), (_, theirs) in zip(losses(tmp_path / "big"), losses(tmp_path / name), strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4), step


def test_packing_learns_what_padding_learns(start: Start, tmp_path: Path) -> None:
    for layout in ("padding", "packing"):
        assert start(output_dir=tmp_path / layout, layout=layout, max_epochs=1, save_every=1000, max_length=256) == 0
    padded, packed = (losses(tmp_path / layout) for layout in ("padding", "packing"))
    assert [loss for _, loss in packed] == pytest.approx([loss for _, loss in padded], abs=1e-3)


def test_the_loss_is_the_mean_over_the_assistants_tokens(
    start: Start, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first loss, computed again with nothing but torch."""
    seen: list[float] = []
    original = ChatTrainer.training_step

    def training_step(self: ChatTrainer, model: Any, inputs: dict[str, Any], items: Any = None) -> torch.Tensor:
        if not seen:
            with torch.no_grad():
                logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
            labels = inputs["labels"][:, 1:].flatten()
            answers = labels != -100
            assert 4 < int(answers.sum()) < answers.numel() / 3
            chosen = logits[:, :-1].flatten(0, 1)[answers]
            seen.append(torch.nn.functional.cross_entropy(chosen, labels[answers]).item())
        return original(self, model, inputs, items)

    monkeypatch.setattr(ChatTrainer, "training_step", training_step)
    assert start(max_steps=1) == 0
    assert losses(out) == [(1, pytest.approx(seen[0], rel=1e-5))]


def test_rows_that_are_cut_are_counted(start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    long = {"messages": [{"role": "user", "content": "a " * 9000}, {"role": "assistant", "content": "b"}]}
    path = tmp_path / "long.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in (good, long, good, good)))
    assert start(data=path, validation_fraction=0.0, max_epochs=2) == 0  # 4 rows, twice
    said = capsys.readouterr().err
    assert said.count("rows longer than max_length = 128 are truncated") == 1
    assert "2 of 8 rows seen were truncated" in said


# ---- where it goes on


def test_a_resumed_run_is_the_undisturbed_run(start: Start, tmp_path: Path, out: Path) -> None:
    """Bitwise, with dropout: in the middle of an epoch, at its end (7 steps each), in the next, across validations."""
    same = {"lora_dropout": 0.1, "max_epochs": 2, "keep_last": 100, "eval_every": 5, "save_every": 1}
    assert start(**same) == 0
    undisturbed = losses(out)
    assert len(undisturbed) == 14
    for step in (3, 7, 12):
        folder = tmp_path / str(step)
        shutil.copytree(out, folder)
        assert start(output_dir=folder, resume_from=folder / f"checkpoint-{step}", **same) == 0
        assert losses(folder) == undisturbed
        assert (folder / "set-aside-checkpoint-14").exists()
        assert close(adapter(folder / "checkpoint-14"), adapter(out / "checkpoint-14"), 0.0)


def test_micro_batch_and_rate_may_change_on_the_way(
    start: Start, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(max_steps=4) == 0
    halved = {"batch_size": 2, "gradient_accumulation": 2, "learning_rate": 1e-4}
    assert start(resume_from=out, **halved) == 0
    assert [step for step, _ in losses(out)] == list(range(1, 22))
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    rates = {record["step"]: record["learning_rate"] for record in records if record["kind"] == "train"}
    assert rates[4] > 1e-3
    assert 0 < rates[5] < 1e-4
    assert start(resume_from=out, batch_size=8, max_steps=100) == 2
    assert "effective batch size is 4, batch_size = 8 times gradient_accumulation = 1 is 8" in capsys.readouterr().err


def test_the_optimizer_step_goes_on_from_file_to_file(
    start: Start, tmp_path: Path, chats: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, other = tmp_path / "first", tmp_path / "second", tmp_path / "other.jsonl"
    syllogisms.write_jsonl(other, 12, seed=9)
    assert start(output_dir=first, max_epochs=1) == 0
    assert checkpoint.numbered(first)[0][0] == 7
    capsys.readouterr()
    assert start(output_dir=second, data=other, resume_from=first, max_epochs=2, validation_fraction=0.0) == 0
    assert "other data was trained up to step 7, this begins at 8" in capsys.readouterr().err
    assert [step for step, _ in losses(second)] == list(range(8, 14))
    state = checkpoint.verify(second / "checkpoint-13").state
    assert (state["before"], state["last_step"]) == (7, 13)
    moments = checkpoint.load_training(checkpoint.verify(second / "checkpoint-13"))["optimizer"]["state"]
    assert {float(moment["step"]) for moment in moments.values()} == {13.0}
    # Standing in the middle of a file, it takes no other.
    assert start(output_dir=tmp_path / "third", data=chats, resume_from=second / "checkpoint-10") == 2
    said = capsys.readouterr().err
    assert "stands at step 10 of 13 on other data" in said
    assert not (tmp_path / "third").exists()


def test_a_run_that_is_past_its_last_step_is_at_its_end(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It failed in its second epoch of three, and is resumed with one epoch: the next file goes on from there."""
    first, second, other = tmp_path / "first", tmp_path / "second", tmp_path / "other.jsonl"
    syllogisms.write_jsonl(other, 12, seed=9)
    calls = itertools.count(1)
    with monkeypatch.context() as patched:
        patched.setattr(ChatTrainer, "check_gradients", lambda trainer: fails(trainer) if next(calls) > 10 else None)
        assert start(output_dir=first, max_epochs=3, validation_fraction=0.0, save_every=3) == 1
    assert checkpoint.numbered(first)[0][0] == 9
    following: dict[str, Any] = {"data": other, "resume_from": first, "validation_fraction": 0.0, "max_epochs": 1}
    assert start(output_dir=second, **following) == 2
    assert "checkpoint-9 stands at step 9 of 24 on other data" in capsys.readouterr().err
    assert start(output_dir=first, resume_from=first, validation_fraction=0.0, max_epochs=1) == 0
    assert "already trained: step 9 of 8, nothing to do" in capsys.readouterr().err
    record = json.loads((first / "training_metadata.json").read_text())
    assert (record["status"], record["step"], record["last_step"]) == ("finished", 9, 8)
    assert start(output_dir=second, **following) == 0
    assert losses(second)[0][0] == 10


def test_each_file_has_its_max_steps(start: Start, tmp_path: Path) -> None:
    first, second, other = tmp_path / "first", tmp_path / "second", tmp_path / "other.jsonl"
    syllogisms.write_jsonl(other, 12, seed=9)
    assert start(output_dir=first, max_steps=2) == 0
    assert start(output_dir=second, data=other, resume_from=first, max_steps=2, validation_fraction=0.0) == 0
    assert [step for step, _ in losses(second)] == [3, 4]


def test_a_folder_can_be_gone_on_from_as_soon_as_it_is_accepted(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.jsonl"
    syllogisms.write_jsonl(other, 12, seed=9)
    first, second = tmp_path / "first", tmp_path / "second"
    assert start(output_dir=first, max_epochs=1) == 0
    with monkeypatch.context() as patched:
        patched.setattr(ChatTrainer, "check_gradients", fails)
        assert start(output_dir=second, data=other, resume_from=first) == 1
    assert [step for step, _ in checkpoint.numbered(second)] == [7]
    assert close(adapter(second / "checkpoint-7"), adapter(first / "checkpoint-7"), 0.0)
    assert start(output_dir=second, data=other, resume_from=second, max_epochs=1) == 0
    assert losses(second)[0][0] == 8


def fails(trainer: ChatTrainer) -> None:
    raise RuntimeError("on purpose")


def test_max_steps_counts_in_all_and_ends_a_finished_run_at_once(
    start: Start, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(max_steps=3) == 0
    before = tree(out)
    assert start(max_steps=3, resume_from=out) == 0
    assert "already trained: step 3 of 3, nothing to do" in capsys.readouterr().err
    assert tree(out) == before
    assert start() == 2
    assert "holds checkpoint-3 of an earlier run" in capsys.readouterr().err
    assert tree(out) == before


@pytest.mark.parametrize(
    "told", ["[]", "{}", '{"global_step": null}', '{"global_step": 5}', '{"global_step": "6"}', "{"]
)
def test_a_trainer_state_of_another_step_is_rejected(tmp_path: Path, told: str) -> None:
    found = checkpoint.Checkpoint(tmp_path / "checkpoint-8", 8, {})
    found.path.mkdir()
    with pytest.raises(InputError, match=r"checkpoint-8: trainer_state\.json"):
        resume.require_trainer_state(found, 6)
    (found.path / "trainer_state.json").write_text(told)
    with pytest.raises(InputError, match=r"checkpoint-8: trainer_state\.json"):
        resume.require_trainer_state(found, 6)
    (found.path / "trainer_state.json").write_text('{"global_step": 6}')
    resume.require_trainer_state(found, 6)


def test_a_damaged_checkpoint_is_passed_over(start: Start, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(max_steps=6) == 0
    undisturbed = losses(out)
    weights = out / "checkpoint-6" / "adapter" / "adapter_model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    assert start(max_steps=6, resume_from=out) == 0
    assert "checkpoint-6 is damaged (adapter/adapter_model.safetensors: " in capsys.readouterr().err
    assert losses(out) == undisturbed
    manifest = out / "checkpoint-6" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "weights": "other"}))
    assert start(max_steps=6, resume_from=manifest.parent) == 2
    assert "manifest.json: lists not all files" in capsys.readouterr().err


# ---- how it ends


@pytest.mark.parametrize(
    ("where", "number", "says"),
    [
        ("compute_loss", float("nan"), "step 3: the loss is nan"),
        ("gradient", float("inf"), "step 3: the gradient is not finite"),
    ],
)
def test_what_is_not_finite_stops_before_anything_learns_from_it(
    start: Start, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    where: str, number: float, says: str,
) -> None:  # fmt: skip
    original: Any = trainer.Trainer.compute_loss
    check = ChatTrainer.check_gradients

    def compute_loss(self: ChatTrainer, *arguments: Any, **keywords: Any) -> torch.Tensor:
        loss: torch.Tensor = original(self, *arguments, **keywords)
        return loss * number if self.done.step == 2 else loss

    def check_gradients(self: ChatTrainer) -> None:
        if self.done.step == 2:
            next(p for p in self.model.parameters() if p.grad is not None).grad[0] = number
        check(self)

    if where == "compute_loss":
        monkeypatch.setattr(trainer.Trainer, "compute_loss", compute_loss)
    else:
        monkeypatch.setattr(ChatTrainer, "check_gradients", check_gradients)
    assert start() == 1
    assert says in capsys.readouterr().err
    ((step, saved),) = checkpoint.numbered(out)
    assert step == 2
    assert all(bool(tensor.isfinite().all()) for tensor in adapter(saved).values())
    assert not left_behind(out)


def test_a_run_tells_its_starter_where_it_is_and_how_it_ended(chats: Path, out: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    flags = ["--output-dir", str(out), "--status-dir", str(told), "--data", str(chats), "--max-steps", "2"]
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(TINY))
    assert lora.main([*flags, "--settings", str(settings)]) == 0
    assert status.read_outcome(told) == status.Outcome(0, "success", "finished", 2)
    heartbeat = status.read_heartbeat(told)
    assert heartbeat is not None
    assert (heartbeat.pid, heartbeat.step) == (os.getpid(), 2)
    assert lora.main([*flags, "--settings", str(settings), "--resume-from", str(tmp_path / "gone")]) == 2
    rejected = status.read_outcome(told)
    assert rejected is not None
    assert (rejected.kind, rejected.message) == ("bad_input", f"resume from {tmp_path / 'gone'}: no such folder")


def test_a_signal_ends_the_run_after_a_checkpoint(chats: Path, out: Path, tmp_path: Path) -> None:
    settings, told = tmp_path / "settings.json", tmp_path / "told"
    settings.write_text(json.dumps({**TINY, "max_steps": 100_000, "save_every": 100_000}))
    command = [sys.executable, "-m", "trainers.chat.lora", "--settings", str(settings), "--data", str(chats)]
    run = subprocess.Popen(
        [*command, "--output-dir", str(out), "--status-dir", str(told)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 600
    while (heartbeat := status.read_heartbeat(told)) is None or heartbeat.step < 3:
        assert time.monotonic() < deadline
        assert run.poll() is None
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    said = run.communicate(timeout=300)[1]
    assert run.returncode == 143, said
    assert "Traceback" not in said
    ((step, saved),) = checkpoint.numbered(out)
    checkpoint.verify(saved)
    assert status.read_outcome(told) == status.Outcome(143, "interrupted", "ended by SIGTERM", step)
    assert not left_behind(out)


def test_degenerate_answers_are_flagged_by_name(
    start: Start, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Validation, "generated", lambda self, trainer, rows: [f"<think> {n}" for n in range(len(rows))])
    assert start(max_steps=2) == 0
    said = capsys.readouterr().err
    assert "step 2: degenerate_output: 100% of the answers carry <think>" in said
    assert "step 2: zero_accuracy: no generated answer is right" in said
    assert json.loads((out / "training_metadata.json").read_text())["validation"]["degenerate"] == 1.0


def test_a_run_whose_gradients_explode_has_collapsed(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(exploding_norm=1e-3, collapse_window=2, collapse_patience=2) == 1
    assert "step 4: the run has collapsed: exploding_gradient in 2 windows" in capsys.readouterr().err


def test_the_best_and_the_last_checkpoints_stay(
    start: Start, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = iter([3.0, 1.0, 2.0, 2.5, 4.0, 5.0])
    monkeypatch.setattr(Validation, "scores", lambda self, trainer: {"loss": next(values), "truncated": 0})
    assert start(max_steps=6, eval_every=1, save_every=1, keep_last=2, answered_rows=0) == 0
    assert [step for step, _ in checkpoint.numbered(out)] == [6, 5, 2]
    told = json.loads((out / "training_metadata.json").read_text())
    assert (told["best_checkpoint"], told["best"]["loss"]) == ("checkpoint-2", 1.0)


# ---- what it leaves, and what it takes


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # what peft asks transformers for
def test_the_adapter_is_one_that_peft_loads(start: Start, out: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert start(max_steps=6, merge=True, validation_fraction=0.0, learning_rate=1e-2) == 0
    base = AutoModelForCausalLM.from_pretrained(out / "base")
    tokenizer = AutoTokenizer.from_pretrained(out / "base")
    tokens = torch.tensor([tokenizer.apply_chat_template([{"role": "user", "content": "a"}], return_dict=False)])
    with torch.no_grad():
        plain = base(tokens).logits
        adapted = PeftModel.from_pretrained(base, out / "checkpoint-6" / "adapter").eval()(tokens).logits
        merged = AutoModelForCausalLM.from_pretrained(out / "merged")(tokens).logits
    assert not torch.allclose(plain, adapted, atol=1e-2)
    assert torch.allclose(merged, adapted, atol=1e-4)
    shutil.rmtree(out / "merged")  # killed before it came to that
    assert start(max_steps=6, merge=True, validation_fraction=0.0, learning_rate=1e-2, resume_from=out) == 0
    with torch.no_grad():
        assert torch.equal(AutoModelForCausalLM.from_pretrained(out / "merged")(tokens).logits, merged)
    about = json.loads((out / "checkpoint-6" / "adapter" / "base.json").read_text())
    assert about["name"] == "tiny-llama (hidden_size 32, layers 1, heads 2)"
    assert len(about["fingerprint"]) == 64


@pytest.fixture(scope="module")
def folder_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model with its tokenizer, as anybody has one on the disk."""
    folder = tmp_path_factory.mktemp("models") / "llama"
    tokenizer = tiny_llama.tokenizer()
    tokenizer.save_pretrained(folder)
    tiny_llama.model(len(tokenizer), hidden_size=16, layers=1, heads=2).save_pretrained(folder)
    return folder


def test_a_model_from_a_folder(start: Start, out: Path, folder_model: Path, tmp_path: Path) -> None:
    assert start(model=str(folder_model), max_steps=2) == 0
    assert not (out / "base").exists()
    config = json.loads((out / "checkpoint-2" / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(folder_model)
    moved = tmp_path / "moved"
    shutil.copytree(folder_model, moved)  # the same base elsewhere
    assert start(model=str(moved), max_steps=3, resume_from=out) == 0
    assert start(model=str(folder_model), adapter=str(out / "checkpoint-3" / "adapter"), max_steps=1,
                 output_dir=tmp_path / "warm") == 0  # fmt: skip


def test_an_adapter_of_another_base_is_rejected_naming_both(
    start: Start, out: Path, folder_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(max_steps=2) == 0
    capsys.readouterr()
    before = tree(out)
    both = r"is an adapter of the base model 'tiny-llama (hidden_size 32, layers 1, heads 2)' "
    assert start(model=str(folder_model), max_steps=4, resume_from=out) == 2
    said = capsys.readouterr().err
    assert both in said
    assert f"not of '{folder_model}'" in said
    assert start(hidden_size=64, max_steps=4, resume_from=out) == 2
    assert "not of 'tiny-llama (hidden_size 64, layers 1, heads 2)'" in capsys.readouterr().err
    assert tree(out) == before
    theirs = {"adapter": str(out / "checkpoint-2" / "adapter"), "output_dir": tmp_path / "new"}
    assert start(hidden_size=64, **theirs) == 2
    assert both in capsys.readouterr().err
    assert start(lora_rank=8, **theirs) == 2
    assert "its r is 4, lora_rank = 8" in capsys.readouterr().err
    (out / "checkpoint-2" / "adapter" / "base.json").unlink()  # as peft itself saves it
    assert start(model=str(folder_model), **theirs) == 2
    assert (
        "adapter of the base model 'tiny-llama (hidden_size 32, layers 1, heads 2)', not of" in capsys.readouterr().err
    )
    assert start(lora_rank=8, max_steps=4, resume_from=out / "checkpoint-2") == 2
    assert not (tmp_path / "new").exists()


def broken(folder_model: Path, tmp_path: Path, how: str) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(folder_model, folder)
    if how == "cut":
        weights = folder / "model.safetensors"
        os.truncate(weights, weights.stat().st_size // 2)
    elif how == "vocabulary":
        tokenizer = tiny_llama.tokenizer()
        tokenizer.add_tokens(["<new>"])
        tokenizer.save_pretrained(folder)
    elif how == "template":
        (folder / "chat_template.jinja").unlink()
    elif how == "flipped":
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        next(iter(weights.values())).view(-1)[3] = 1e30
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    elif how == "no config":
        (folder / "config.json").unlink()
    return folder


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("cut", "model.safetensors: "),
        ("flipped", "model.safetensors: weight model.embed_tokens.weight holds NaN, infinity or a value over"),
        ("vocabulary", "its tokenizer has 641 tokens, its embedding 640: no pair"),
        ("template", "the tokenizer has no chat template"),
        ("no config", "config.json: No such file"),
    ],
)
def test_a_base_that_is_no_good_is_rejected(
    start: Start, out: Path, folder_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str, says: str
) -> None:
    assert start(model=str(broken(folder_model, tmp_path, how))) == 2
    assert says in capsys.readouterr().err
    assert not out.exists()


def test_a_template_that_takes_no_such_conversation_is_named(
    start: Start, folder_model: Path, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folder_model, folder)
    (folder / "chat_template.jinja").write_text(
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
        + tiny_llama.TEMPLATE
    )
    assert start(model=str(folder)) == 2
    assert "row 1 of the data (system, user, assistant): no system here" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model": "./none"}, "model ./none: no such folder"),
        ({"model": "nobody/nothing"}, "model nobody/nothing: no such folder, not in the local cache"),
        ({"adapter": "./none"}, "adapter ./none: no such folder"),
        ({"quantization": "4bit"}, "quantization = 4bit: needs bitsandbytes"),
        ({"precision": "fp16"}, 'precision = "fp16" is not one of fp32, bf16'),
        ({"device": "cuda"}, "device = cuda: no CUDA device is visible"),
        ({"target_modules": "no_such_module"}, "target_modules = no_such_module: "),
        ({"merge": True, "quantization": "4bit"}, "merge = true cannot be had with quantization = 4bit"),
        ({"best_by": "exact_match", "answered_rows": 0}, "best_by = exact_match needs answered_rows over 0"),
        ({"heads": 3}, "hidden_size = 32 must be a multiple of twice heads = 3"),
    ],
)
def test_what_cannot_be_had_is_rejected(
    start: Start, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    values: dict[str, Any], says: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert start(**values) == 2
    assert says in capsys.readouterr().err
    assert not out.exists()


RANGES = {
    "max_length": (128, 32_768),
    "learning_rate": (1e-6, 1e-2),
    "batch_size": (1, 128),
    "gradient_accumulation": (1, 128),
    "lora_rank": (1, 1024),
}


def test_the_ranges_are_those_of_the_post_mortem() -> None:
    for name, (low, high) in RANGES.items():
        Settings(**{name: low})
        Settings(**{name: high})
        for value in (low - low / 2 if isinstance(low, float) else low - 1, high * 1.01 if high < 1 else high + 1):
            with pytest.raises(ValueError, match=name):
                Settings(**{name: value})


def test_every_wrong_setting_is_told_before_torch_is_imported(tmp_path: Path) -> None:
    wrong = ["--max-length", "64", "--learning-rate", "0", "--batch-size", "0", "--model", "./none"]
    code = (
        "import sys\nfrom trainers.chat.lora import main\n"
        f"code = main({[*wrong, '--output-dir', str(tmp_path / 'out')]!r})\n"
        "assert not {'torch', 'transformers', 'peft'} & sys.modules.keys()\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    assert "trainers.chat.lora: max_length = 64 is not a whole number from 128 to 32768" in lines
    assert not (tmp_path / "out").exists()


def test_bf16_trains_on_the_cpu(start: Start, out: Path) -> None:
    assert start(max_steps=2, precision="bf16", gradient_checkpointing=True) == 0
    assert {tensor.dtype for tensor in adapter(out / "checkpoint-2").values()} == {torch.float32}


def test_loader_workers_change_nothing(start: Start, tmp_path: Path) -> None:
    for workers in (0, 2):
        assert start(output_dir=tmp_path / str(workers), num_workers=workers, max_steps=9) == 0
    assert losses(tmp_path / "0") == losses(tmp_path / "2")


def test_the_base_is_the_same_wherever_it_is_made() -> None:
    first, second = (tiny_llama.model(640, hidden_size=16, layers=1, heads=2).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert tiny_llama.tokenizer().get_vocab() == tiny_llama.tokenizer().get_vocab()


def test_what_is_done_ahead_draws_no_random_number() -> None:
    sys.modules.pop("trainers.chat.preload", None)
    tiny_llama.words.cache_clear()
    before = torch.get_rng_state()
    importlib.import_module("trainers.chat.preload")
    assert torch.equal(torch.get_rng_state(), before)
    assert tiny_llama.words.cache_info().currsize == 1
