"""The queue with its own trainer, as it is without any `trainer` setting."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from queue_runs import QUICK, Queue

from trainers.chat import syllogisms

TINY = {
    "hidden_size": 32, "layers": 1, "heads": 2, "max_length": 128, "lora_rank": 4, "lora_alpha": 8, "batch_size": 8,
    "warmup_steps": 2, "answered_rows": 0, "device": "cpu",
}  # fmt: skip


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    queue = Queue(tmp_path / "queue")
    quick = {name: value for name, value in QUICK.items() if name != "trainer"}
    (queue.root / "queue.json").write_text(json.dumps({**quick, "trainer_settings": TINY}))
    return queue


def test_the_optimizer_step_goes_on_from_file_to_file(queue: Queue) -> None:
    for number in range(2):
        syllogisms.write_jsonl(queue.put("inbox", f"{number}.jsonl"), 40, seed=number)
    queue.put("inbox", "bad.jsonl", b'{"messages": [{"role": "robot", "content": "x"}]}\n')
    assert queue("once") == 0
    assert queue.states() == {"0.jsonl": "done", "1.jsonl": "done", "bad.jsonl": "failed"}
    steps = [queue.report(name)["attempts"][0]["step"] for name in ("0.jsonl", "1.jsonl")]
    assert 0 < steps[0] < steps[1]
    found = 'bad.jsonl, line 1: messages[0].role = "robot" (text): must be one of system, user, assistant'
    assert queue.file("bad.jsonl")["reason"] == f"bad_input: {found}"
    assert queue.file("bad.jsonl")["attempts"] == 0


def test_wrong_trainer_settings_are_said_before_a_night_is_lost(
    queue: Queue, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"batch_size": 0, "num_train_epochs": None, "model": str(queue.root / "nowhere")}
    (queue.root / "queue.json").write_text(json.dumps({"trainer_settings": wrong}))
    queue.put("inbox", "a.jsonl")
    assert queue("once") == 2
    err = capsys.readouterr().err
    assert "trainer_settings: batch_size = 0 is not a whole number from 1 to 128" in err
    assert "trainer_settings: unknown setting num_train_epochs" in err
    assert "nowhere" in err
    assert queue.tree() == {"inbox": ["a.jsonl"]}
