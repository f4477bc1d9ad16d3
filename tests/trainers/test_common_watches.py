"""What stops a run that does not learn, and what looks for room before it begins."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from trainer_runs import losses

from trainers.code import rehearsal
from trainers.common.errors import TrainingFailed
from trainers.common.optimization import CollapseWatch

GIB = 1 << 30


def watch(**more: Any) -> CollapseWatch:
    return CollapseWatch(**{"window": 5, "patience": 3, "grace": 0, **more})


def feed(
    watched: CollapseWatch,
    steps: int,
    *,
    loss: float = 0.7,
    norm: float = 1.0,
    probabilities: Sequence[float] = (0.2, 0.8),
    labels: Sequence[int] = (0, 1),
    first: int = 1,
) -> None:
    for step in range(first, first + steps):
        watched.update(step, loss=loss, gradient_norm=norm, probabilities=probabilities, labels=labels)


@pytest.mark.parametrize(
    ("sign", "kind"),
    [
        ({"norm": 9e-8}, "vanishing_gradient"),
        ({"norm": 101.0}, "exploding_gradient"),
        ({"norm": float("nan")}, "not_finite"),
        ({"loss": float("inf")}, "not_finite"),
        ({"probabilities": (0.3, 0.3)}, "constant_predictions"),
        ({"probabilities": (0.3, 0.4)}, "one_class"),
        ({"probabilities": (0.6, 0.7)}, "one_class"),
    ],
)
def test_three_windows_in_a_row_end_the_run(sign: dict[str, Any], kind: str) -> None:
    watched = watch()
    feed(watched, 14, **sign)
    assert [event["kinds"] for event in watched.events] == [[kind], [kind]]
    with pytest.raises(TrainingFailed, match=f"step 15: the run has collapsed: {kind} in 3 windows of 5 steps"):
        feed(watched, 1, first=15, **sign)
    report = json.loads(json.dumps(watched.report(), allow_nan=False))
    assert [event["first_step"] for event in report["events"]] == [1, 6, 11]
    assert report["limits"]["collapse_patience"] == 3


def test_a_window_that_is_sound_begins_the_count_anew() -> None:
    watched = watch()
    for first in range(1, 101, 15):
        feed(watched, 10, norm=200.0, first=first)
        feed(watched, 5, first=first + 10)
    assert len(watched.events) == 14


@pytest.mark.parametrize(
    "sound",
    [
        {},
        {"norm": 1e-7},
        {"norm": 100.0},
        {"probabilities": (0.3, 0.3), "labels": (0, 0)},
        {"probabilities": (0.4999, 0.5001)},
    ],
)
def test_what_is_sound_is_no_sign(sound: dict[str, Any]) -> None:
    watched = watch()
    feed(watched, 50, **sound)
    assert watched.events == []


def test_one_odd_step_in_a_window_is_no_sign_but_one_nan_is() -> None:
    watched = watch()
    feed(watched, 4, norm=500.0)
    feed(watched, 1, first=5)
    feed(watched, 4, first=6)
    feed(watched, 1, first=10, loss=float("nan"))
    assert [event["kinds"] for event in watched.events] == [["not_finite"]]


def test_a_new_model_may_give_one_answer_for_a_while() -> None:
    watched = watch(grace=20)
    feed(watched, 20, probabilities=(0.51, 0.52))
    assert watched.events == []
    with pytest.raises(TrainingFailed, match="one_class"):
        feed(watched, 15, probabilities=(0.51, 0.52), first=21)


def test_a_resumed_watch_goes_on_counting() -> None:
    watched, resumed = watch(), watch()
    feed(watched, 12, norm=500.0)
    resumed.load(json.loads(json.dumps(watched.state(), allow_nan=False)))
    with pytest.raises(TrainingFailed, match="step 15"):
        feed(resumed, 3, norm=500.0, first=13)
    assert len(resumed.events) == 3


def test_a_collapsed_run_ends_with_a_report(
    start: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = {"exploding_norm": 1e-9, "vanishing_norm": 0.0, "collapse_window": 2, "collapse_patience": 2}
    assert start(max_steps=30, **limits) == 1
    assert "step 4: the run has collapsed: exploding_gradient" in capsys.readouterr().err
    report = json.loads((out / "collapse_report.json").read_text())
    assert [event["step"] for event in report["events"]] == [2, 4]
    # Resumed with sound limits it goes on, and the report of the end that was none is gone.
    assert start(max_steps=8, resume_from=out, **{**limits, "exploding_norm": 100.0}) == 0
    assert not (out / "collapse_report.json").exists()
    assert losses(out)[-1][0] == 8


# ---- GPU memory


class Device:
    """A device that takes so many bytes a row."""

    def __init__(self, total: int, a_row: int) -> None:
        self.total, self.a_row, self.taken = total, a_row, 0
        self.tried: list[int] = []

    def reset(self) -> None:
        self.taken = 0

    def peak(self) -> rehearsal.Peak:
        return rehearsal.Peak(self.taken, self.taken, self.total)

    def attempt(self, rows: int) -> None:
        import torch

        self.tried.append(rows)
        self.taken = rows * self.a_row
        if self.taken > self.total:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def probe(device: Device, rows: int, adapt: bool) -> tuple[int, list[str]]:
    import torch

    said: list[str] = []
    taken = rehearsal.probe(torch.device("cuda"), device.attempt, rows, adapt=adapt, say=said.append, memory=device)
    return taken, said


def test_a_step_that_fits_is_taken_as_it_is() -> None:
    device = Device(40 * GIB, GIB)
    taken, said = probe(device, 32, adapt=True)
    assert (taken, device.tried, len(said)) == (32, [32], 1)
    assert "32.00 GiB" in said[0]
    assert "80%" in said[0]


def test_a_step_that_nearly_fills_the_device_is_warned_of() -> None:
    taken, said = probe(Device(40 * GIB, GIB), 37, adapt=False)
    assert taken == 37
    assert "over 90%" in said[-1]


def test_the_batch_is_halved_until_it_fits_only_when_asked() -> None:
    device = Device(40 * GIB, GIB)
    taken, said = probe(device, 129, adapt=True)
    assert (taken, device.tried) == (33, [129, 65, 33])
    assert "batch_size 129 is taken in forward passes of 33 rows" in said[-1]
    with pytest.raises(TrainingFailed, match="smaller batch_size, or adapt_batch_size = true"):
        probe(Device(40 * GIB, GIB), 128, adapt=False)
    with pytest.raises(TrainingFailed, match="nothing smaller is left"):
        probe(Device(GIB, 2 * GIB), 4, adapt=True)


def test_without_a_gpu_nothing_is_tried() -> None:
    import torch

    assert rehearsal.probe(torch.device("cpu"), pytest.fail, 32, adapt=True, say=pytest.fail) == 32


def test_what_is_no_shortage_is_not_taken_for_one() -> None:
    device = Device(GIB, 1)
    device.attempt = lambda rows: (_ for _ in ()).throw(RuntimeError("shapes differ"))  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="shapes differ"):
        probe(device, 8, adapt=True)
