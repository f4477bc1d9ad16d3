"""Urgent first, and nobody waits for ever."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import pytest
from queue_runs import Queue

from trainers.queue import turns
from trainers.queue.layout import PRIORITIES
from trainers.queue.ledger import Ledger


@pytest.mark.parametrize("bound", [2, 3, 10])
def test_an_endless_stream_of_urgent_work(bound: int) -> None:
    """Whatever comes, the first file of a priority waits for at most ``bound`` others."""
    rng = random.Random(bound)
    for always in (("high", "normal", "low"), ("high", "low"), ("high", "normal"), ()):
        passed = dict.fromkeys(PRIORITIES, 0)
        waited = dict.fromkeys(PRIORITIES, 0)
        for _ in range(2000):
            waiting = {*always, *(priority for priority in PRIORITIES if rng.random() < 0.5)}
            waiting |= {priority for priority in PRIORITIES if waited[priority]}  # nobody leaves before its turn
            chosen = turns.choose(waiting, passed, bound)
            if chosen is None:
                assert not waiting
                continue
            passed = turns.after(chosen, waiting, passed)
            for priority in PRIORITIES[1:]:
                waited[priority] = waited[priority] + 1 if priority in waiting and priority != chosen else 0
                assert waited[priority] <= bound


def test_urgent_first() -> None:
    nobody = dict.fromkeys(PRIORITIES, 0)
    assert turns.choose(("low", "high", "normal"), nobody, 10) == "high"
    assert turns.choose(("low", "normal"), nobody, 10) == "normal"
    assert turns.choose((), nobody, 10) is None
    assert turns.choose(("high", "low"), {"high": 0, "normal": 99, "low": 9}, 10) == "high"
    assert turns.choose(("high", "low"), {"high": 0, "normal": 99, "low": 10}, 10) == "low"


def test_a_low_file_runs_beside_urgent_ones(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "queue", starvation_bound=3)
    for number in range(6):
        queue.put("high", f"{number}.jsonl", steps=1)
    queue.put("low", "low.jsonl", steps=1)
    assert queue("once") == 0
    assert queue.begun() == ["0.jsonl", "1.jsonl", "2.jsonl", "low.jsonl", "3.jsonl", "4.jsonl", "5.jsonl"]


def test_once_ends_though_more_keeps_coming(tmp_path: Path) -> None:
    """A trainer that puts in the next urgent file: an endless stream of them. The low one is trained, and once ends."""
    queue = Queue(tmp_path / "queue", starvation_bound=2)
    feed = "import json, os, sys; root, data = sys.argv[1:]; n = json.loads(open(data).readline())['id']"
    feed += "; name = f'{root}/high/{n + 1}'; open(name + '.part', 'w').write(json.dumps({'id': n + 1}) + '\\n')"
    feed += "; os.rename(name + '.part', name + '.jsonl')"
    feed += "; open(f'{root}/diary.jsonl', 'a').write(json.dumps({'event': 'begin', 'row': n}) + '\\n')"
    queue.settings(starvation_bound=2, trainer=[sys.executable, "-c", feed, str(queue.root), "{data}"])
    queue.put("high", "0.jsonl", b'{"id": 0}\n')
    queue.put("low", "low.jsonl", b'{"id": 1000}\n')
    assert queue("once") == 0
    assert queue.begun() == [0, 1, 1000]
    assert queue.states()["low.jsonl"] == "done"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        yield ledger


def add(ledger: Ledger, name: str, **values: object) -> int:
    return ledger.add(name, "normal", name, "queued", "normal", hash=f"{name:0>64}", **values)


def test_a_pause_is_kept_even_if_the_clock_jumps(ledger: Ledger) -> None:
    now = time.time()
    with ledger.transaction():
        add(ledger, "paused", retry_at=now + 50)
        add(ledger, "of a clock that was ahead", retry_at=now + 5000)
    (first, second) = (ledger.head("normal", at, 300.0) for at in (now, now + 60))
    assert first is not None
    assert first.name == "of a clock that was ahead"
    assert second is not None
    assert second.name == "paused"


def test_counts_are_kept_by_the_ledger(ledger: Ledger) -> None:
    with ledger.transaction():
        numbers = [add(ledger, str(number)) for number in range(5)]
        ledger.change(numbers[0], state="done", folder="done", file="0", done_number=1)
        ledger.change(numbers[1], state="missing", folder=None, file=None)
    assert ledger.counts("folder") | {} == {
        "inbox": 0, "high": 0, "normal": 3, "low": 0, "processing": 0, "done": 1, "failed": 0,
    }  # fmt: skip
    counted = {state: count for state, count in ledger.counts("state").items() if count}
    assert counted == {"queued": 3, "done": 1, "missing": 1}
    ledger.verify()


def test_a_transaction_that_fails_changes_nothing(ledger: Ledger) -> None:
    def fails() -> None:
        with ledger.transaction():
            add(ledger, "a")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert ledger.rows() == []
