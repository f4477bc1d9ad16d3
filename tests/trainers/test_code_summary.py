from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainers.code.seeds import curves, summary
from trainers.code.seeds.summary import Predictions, SeedRun
from trainers.common.errors import TrainingFailed

SCORES = dict.fromkeys((*summary.FRACTIONS, "loss"), 0.5) | {"step": 4}
LABELS = [1, 1, 0, 0]
LOGITS = [[0.0, 2.0], [0.0, -0.5], [0.0, 1.0], [0.0, -2.0]]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def predictions(
    logits: Any = LOGITS, labels: list[int] = LABELS, keys: tuple[int, ...] = (10, -20, 30, 40)
) -> Predictions:
    import numpy

    return Predictions(numpy.array(keys), numpy.array(labels), numpy.array(logits, dtype=numpy.float32))


def finished(seed: int, f1: float = 0.5, **others: Any) -> SeedRun:
    return SeedRun(seed, "finished", scores={**SCORES, "f1": f1}, **{"predictions": predictions(), **others})


def made_of(*runs: SeedRun, min_mean_f1: float = 0.0, max_std_f1: float = 1.0) -> dict[str, Any]:
    made = summary.aggregate(runs, min_mean_f1=min_mean_f1, max_std_f1=max_std_f1)
    json.dumps(made, allow_nan=False)
    return made


def write_seed(
    folder: Path,
    seed: int,
    *,
    logits: Any = LOGITS,
    labels: Any = LABELS,
    keys: Any = (1, 2, 3, 4),
    settings: dict[str, Any] | None = None,
    tensors: dict[str, Any] | None = None,
    header: dict[str, str] | None = None,
    **metadata: Any,
) -> Path:
    """An output folder as a finished run leaves it; tensors, header and metadata may be other ones."""
    import numpy
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    f1 = metadata.pop("f1", 0.5)
    written = {
        "status": "finished",
        "step": 4,
        "best_step": 4,
        "best_checkpoint": "checkpoint-4",
        "best": {"kind": "validation", **SCORES, "f1": f1},
        "collapse_events": [],
        "seconds": 1.5,
        "seed": seed,
        **metadata,
    }
    (folder / "training_metadata.json").write_text(json.dumps(written))
    (folder / "settings.json").write_text(json.dumps({**(settings or {}), "seed": seed}))
    records = [{"step": step, "kind": "train", "loss": 0.7 - step / 10} for step in range(1, 5)]
    records += [{"step": step, "kind": "validation", "loss": 0.6, "f1": f1} for step in (2, 4)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    arrays = {
        "logits": numpy.array(logits, dtype=numpy.float32),
        "labels": numpy.array(labels, dtype=numpy.int64),
        "keys": numpy.array(keys, dtype=numpy.int64),
        **(tensors or {}),
    }
    kept = {name: array for name, array in arrays.items() if array is not None}
    save_file(kept, str(folder / summary.LOGITS), metadata={"step": "4"} if header is None else header)
    return folder


# ---- arithmetic


def test_mean_and_standard_deviation_of_a_sample() -> None:
    made = made_of(finished(1, 0.6), finished(2, 0.7), finished(3, 0.9))
    assert made["scores"]["f1"] == {
        "mean": pytest.approx(2.2 / 3, abs=1e-15),
        "std": pytest.approx(math.sqrt(0.07 / 3), abs=1e-15),
    }
    assert made["scores"]["loss"] == {"mean": 0.5, "std": 0.0}
    assert "ddof = 1" in made["std"]
    assert made["seeds_counted"] == 3


def test_a_mean_or_deviation_at_its_limit_passes() -> None:
    made = made_of(finished(1, 0.85), finished(2, 0.85), finished(3, 0.85), min_mean_f1=0.85, max_std_f1=0.0)
    assert made["gates"]["mean_f1"]["passed"] is True
    assert made["gates"]["std_f1"]["passed"] is True
    assert made["passed"] is True
    assert made["failures"] == []


def test_missed_gates_say_by_what() -> None:
    made = made_of(finished(1, 0.5), finished(2, 0.7), min_mean_f1=0.85, max_std_f1=0.05)
    assert made["passed"] is False
    assert made["failures"] == [
        "mean F1 0.6000 is under 0.85 (min_mean_f1)",
        f"std F1 {statistics.stdev([0.5, 0.7]):.4f} is over 0.05 (max_std_f1)",
    ]
    assert made["gates"]["mean_f1"]["limit"] == 0.85
    assert made["gates"]["std_f1"]["value"] == pytest.approx(0.1 * math.sqrt(2))


def test_one_seed_has_no_deviation_and_no_gate_on_it() -> None:
    made = made_of(finished(1, 0.9), min_mean_f1=0.85, max_std_f1=0.05)
    assert made["scores"]["f1"] == {"mean": 0.9, "std": None}
    assert made["gates"]["std_f1"]["passed"] is None
    assert "1 finished seed, the gate does not apply" in made["gates"]["std_f1"]["told"]
    assert made["passed"] is True


def test_the_ensemble_is_the_mean_of_the_probabilities() -> None:
    # In logits of class 1 the second row is called 1 on average, and 0 by the mean of the probabilities.
    one = predictions([[1.0, 3.0], [0.0, 5.0], [0.0, -1.0], [7.0, 4.0]])
    two = predictions([[0.0, 1.0], [0.0, -0.4], [0.0, -1.0], [0.0, 0.0]])
    third = predictions([[0.0, 1.0], [0.0, -0.5], [0.0, 1.0], [0.0, 0.0]])
    runs = [finished(seed, predictions=each) for seed, each in enumerate((one, two, third))]
    labels, probabilities = summary.ensemble_of(runs)
    expected = [
        (2.0, 1.0, 1.0),  # key 10
        (5.0, -0.4, -0.5),  # key -20
        (-1.0, -1.0, 1.0),  # key 30
        (-3.0, 0.0, 0.0),  # key 40
    ]
    means = [sum(map(sigmoid, each)) / 3 for each in expected]
    assert labels == [1, 1, 0, 0]
    assert probabilities == pytest.approx([means[1], means[0], means[2], means[3]], abs=1e-7)


def test_scores_of_the_ensemble_and_its_sweep() -> None:
    made = made_of(finished(1), finished(2))
    # Probabilities 0.881, 0.378 of class 1's rows, 0.731, 0.119 of the others.
    ensemble = made["ensemble"]
    assert (ensemble["seeds"], ensemble["rows"]) == ([1, 2], 4)
    assert (ensemble["f1"], ensemble["precision"], ensemble["recall"]) == (0.5, 0.5, 0.5)
    assert ensemble["balanced_accuracy"] == 0.5
    assert ensemble["best_f1"] == pytest.approx(0.8)
    assert ensemble["best_threshold"] == pytest.approx(sigmoid(-0.5), abs=1e-7)
    points = made["threshold_sweep"]["points"]
    assert [point["threshold"] for point in points] == pytest.approx([0.05 * step for step in range(1, 20)])
    by_threshold = {point["threshold"]: (point["precision"], point["recall"]) for point in points}
    assert by_threshold[0.05] == (0.5, 1.0)
    assert by_threshold[0.15] == (pytest.approx(2 / 3), 1.0)
    assert by_threshold[0.5] == (0.5, 0.5)
    assert by_threshold[0.75] == (1.0, 0.5)
    assert by_threshold[0.9] == (0.0, 0.0)
    assert made["threshold_sweep"]["best"] == points[2]
    assert any("optimistic" in note for note in made["notes"])


def test_rows_in_another_order_are_matched_by_their_keys() -> None:
    import numpy

    straight = predictions(keys=(5, 5, 6, 7), labels=[0, 1, 1, 0])
    order = numpy.array([3, 1, 0, 2])
    turned = Predictions(*(part[order] for part in straight))
    assert summary.ensemble_of([finished(1, predictions=straight), finished(2, predictions=turned)]) == (
        summary.ensemble_of([finished(1, predictions=straight)])
    )


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (predictions(keys=(10, -20, 30, 41)), "1 only in that of 1, 1 only in that of 2"),
        (predictions(LOGITS[:3], [1, 1, 0], (10, -20, 30)), "1 only in that of 1, 0 only in that of 2"),
        (predictions(labels=[1, 0, 0, 0]), "1 only in that of 1, 1 only in that of 2"),
    ],
)
def test_other_rows_are_not_mixed(other: Predictions, told: str) -> None:
    made = made_of(finished(1), finished(2, predictions=other))
    assert made["ensemble"] is None
    assert made["threshold_sweep"] is None
    assert told in made["ensemble_missing"]
    assert "seeds 1 and 2 differ" in made["ensemble_missing"]
    assert made["passed"] is False
    assert any(told in line for line in made["failures"])


def test_only_finished_seeds_count_and_the_others_are_named() -> None:
    events = [{"step": 9, "kinds": ["one_class"]}]
    made = made_of(
        finished(1, 0.9),
        SeedRun(2, "failed", "step 30: the loss diverged", 1, collapse_events=events),
        SeedRun(3, "damaged", "metrics gone"),
        SeedRun(4, "not started"),
    )
    assert made["scores"]["f1"]["mean"] == 0.9
    assert made["ensemble"]["seeds"] == [1]
    assert made["failures"] == [
        "seed 2: failed, exit code 1: step 30: the loss diverged",
        "seed 3: damaged: metrics gone",
        "seed 4: not started",
    ]
    assert made["collapse_events"] == [{"seed": 2, **events[0]}]
    assert made["seeds"][1]["collapse_events"] == 1
    assert made["seeds"][1]["f1"] is None


def test_no_seed_at_all() -> None:
    made = made_of(SeedRun(1, "failed", "why", 1), min_mean_f1=0.0)
    assert made["scores"]["f1"] == {"mean": None, "std": None}
    assert made["failures"] == ["seed 1: failed, exit code 1: why", "mean F1: no seed has one (min_mean_f1)"]
    assert made["ensemble_missing"] == "no seed has finished"
    assert "mean F1: no seed has one" in "\n".join(summary.table(made))


def test_what_f1_cannot_tell_is_noted() -> None:
    made = made_of(finished(1, predictions=predictions([[0, 1.0]] * 4, labels=[1, 1, 1, 1])))
    assert made["ensemble"]["f1"] == 1
    assert "all 4 validation rows are of class 1: F1 tells nothing" in made["notes"]
    assert any(note.startswith("ensemble: one_class_predictions") for note in made["notes"])


def test_the_table_fits_a_terminal_of_80_columns() -> None:
    made = made_of(
        finished(4294967295, 0.6412, facts={"seconds": 40_271.2, "checkpoint": "checkpoint-123456789"}),
        finished(7, 0.5, facts={"seconds": 59.6, "checkpoint": "checkpoint-4"}),
        SeedRun(2025, "failed", "trainers.code.transformer: step 30: " + "the loss diverged " * 9, 1),
        min_mean_f1=0.85,
    )
    lines = summary.table(made)
    assert max(map(len, lines)) <= 79
    text = "\n".join(lines)
    assert "4294967295" in text
    assert "0.641" in text
    assert "11:11:11" in text
    assert "1:00" in text
    assert "failed: trainers.code.transformer: step 30" in text
    assert "gate MISSED: mean F1 0.5706 is under 0.85 (min_mean_f1)" in text


# ---- reading


def test_a_finished_seed_is_read(tmp_path: Path) -> None:
    run = summary.read(write_seed(tmp_path / "s", 7, f1=0.75, collapse_events=[{"step": 1}]), 7)
    assert (run.seed, run.state, run.why) == (7, "finished", None)
    assert run.scores["f1"] == 0.75
    assert run.facts == {"seconds": 1.5, "checkpoint": "checkpoint-4"}
    assert list(run.collapse_events) == [{"step": 1}]
    assert run.predictions is not None
    assert run.predictions.logits.tolist() == LOGITS
    assert run.predictions.keys.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(("status", "state"), [("running", "cut off"), ("ended by signal 15", "cut off")])
def test_a_seed_that_can_go_on(tmp_path: Path, status: str, state: str) -> None:
    assert summary.read(write_seed(tmp_path / "s", 7, status=status, best=None), 7).state == state
    assert summary.read(tmp_path / "nothing", 7).state == "not started"


def spoil(file: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes(change((folder / file).read_bytes())) and None


def rewrite(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: write_seed(folder, 7, **changes) and None


def best(**changes: Any) -> Callable[[Path], None]:
    return rewrite(best={**SCORES, **changes})


def arrays(dtype: str = "float32", **shapes: tuple[int, ...]) -> Callable[[Path], None]:
    import numpy

    return rewrite(tensors={name: numpy.zeros(shape, dtype) for name, shape in shapes.items()})


METADATA, KEPT = summary.METADATA, summary.LOGITS


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (spoil(METADATA, lambda text: text[:40]), f"{METADATA}: bad JSON"),
        (spoil(METADATA, lambda text: text.replace(b"1.5", b"NaN")), f"{METADATA}: bad JSON: NaN"),
        (spoil(METADATA, lambda text: b"[1]"), f"{METADATA}: no JSON object"),
        (spoil(METADATA, lambda text: b"\xff\xfe"), f"{METADATA}: bad JSON"),
        (spoil(METADATA, lambda text: b"[" * 100_000), f"{METADATA}: bad JSON"),
        (rewrite(best=None), "no scores (best is None): was no row held out?"),
        (best(f1=1.5), f"{METADATA}: best f1 is 1.5"),
        (best(loss=-1), f"{METADATA}: best loss is -1"),
        (best(recall="high"), f"{METADATA}: best recall is 'high'"),
        (best(precision=10**400), f"{METADATA}: best precision is 1000"),
        (best(step=4.5), f"{METADATA}: best step is 4.5"),
        (rewrite(seconds=None), f"{METADATA}: seconds is None"),
        (rewrite(best_checkpoint=3), f"{METADATA}: best_checkpoint is 3"),
        (rewrite(collapse_events={}), f"{METADATA}: collapse_events is no list of objects"),
        (spoil(KEPT, lambda raw: raw[:-7]), f"{KEPT}: "),
        (spoil(KEPT, lambda raw: b""), f"{KEPT}: "),
        (spoil(KEPT, lambda raw: b"\xff" * 200), f"{KEPT}: "),
        (lambda folder: (folder / KEPT).unlink(), f"{KEPT}: No such file"),
        (rewrite(header={"step": "3"}), f"{KEPT}: of step 3, the best is step 4"),
        (rewrite(header={}), f"{KEPT}: of step None, the best is step 4"),
        (rewrite(tensors={"keys": None}), f"{KEPT}: "),
        (arrays("float64", logits=(4, 2)), f"{KEPT}: logits is F64, not F32"),
        (arrays(logits=(4, 3)), f"{KEPT}: logits (4, 3), labels (4,), keys (4,); expected (rows, 2)"),
        (arrays(logits=(3, 2)), f"{KEPT}: logits (3, 2), labels (4,)"),
        (rewrite(labels=[], keys=[], logits=[]), f"{KEPT}: logits (0,), labels (0,)"),
        (rewrite(logits=[[0, math.nan], [math.inf, 0], [0, 0], [0, 0]]), f"{KEPT}: 2 logits are not finite"),
        (rewrite(labels=[0, 1, 2, 1]), f"{KEPT}: a label is neither 0 nor 1"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: Callable[[Path], None], told: str) -> None:
    folder = write_seed(tmp_path / "s", 7)
    damage(folder)
    run = summary.read(folder, 7)
    assert run.state == "damaged"
    assert run.why is not None
    assert told in run.why
    assert "\n" not in run.why


# ---- curves


def test_smoothing_keeps_a_line_and_its_ends() -> None:
    line = [curves.Point(step, 2.0 * step) for step in range(1, 8)]
    assert [point.value for point in curves.smoothed(line, 3)] == [3.0, 4.0, 6.0, 8.0, 10.0, 12.0, 13.0]
    assert curves.smoothed(line, 1) == line
    assert curves.smoothed([], 3) == []


def test_the_mean_is_at_the_steps_that_all_have() -> None:
    one = [curves.Point(2, 1.0), curves.Point(4, 2.0)]
    two = [curves.Point(4, 5.0), curves.Point(6, 9.0)]
    assert curves.mean_of([one, two]) == [curves.Point(4, 3.5)]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"step": 9, "kind": "train"}', "metrics.jsonl, line 7: no record of a step"),
        ('{"step": 9, "kind": "train", "loss": NaN}', "metrics.jsonl, line 7"),
        ('{"step": "9", "kind": "train", "loss": 1}', "metrics.jsonl, line 7"),
        ('{"step": 9, "kind": "validation", "loss": 1, "f1": null}', "metrics.jsonl, line 7"),
        ('{"step": 9, "ki', "metrics.jsonl, line 7"),
        ("[]", "metrics.jsonl, line 7"),
        ("\xff", "not UTF-8 at byte"),
    ],
)
def test_a_damaged_log_is_named_and_read_up_to_there(tmp_path: Path, line: str, told: str) -> None:
    path = write_seed(tmp_path / "s", 7) / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + line.encode("latin-1") + b"\n")
    curve = curves.Curve(7)
    assert told in str(curves.read(path, curve))
    assert len(curve.training) == (0 if "UTF-8" in told else 4)
    assert curves.read(tmp_path / "none", curves.Curve(7)) == "none: no such file"
    assert curves.read(tmp_path / "none", curves.Curve(7, "failed")) is None


def pixels(path: Path) -> Any:
    from matplotlib.image import imread

    return imread(path)[..., :3]


def test_the_picture_shows_each_seed_and_their_mean(tmp_path: Path) -> None:
    import numpy
    from matplotlib.colors import to_rgb

    def drawn(*drawn_curves: curves.Curve) -> Any:
        curves.draw(tmp_path / "c.png", drawn_curves, title="three", min_mean_f1=0.85)
        return pixels(tmp_path / "c.png")

    def height_of(image: Any, colour: str, panel: int) -> int:
        height, width = image.shape[:2]
        part = image[int(0.15 * height) : int(0.8 * height), width * panel // 3 : width * (panel + 1) // 3]
        near = 0.2 if colour != curves.MEAN else 0.05  # a seed's line is a little transparent
        (rows,) = (numpy.abs(part - to_rgb(colour)).max(axis=2) < near).sum(axis=1).nonzero()
        return int(rows.max() - rows.min()) if len(rows) else 0

    def curve(seed: int, state: str = "finished") -> curves.Curve:
        values = [curves.Point(step, 0.3 + 0.01 * seed + 0.3 / step) for step in range(1, 13)]
        return curves.Curve(seed, state, values, values[3::4], values[3::4], best_step=8)

    three = drawn(curve(1), curve(5), curve(9))
    for colour in (*curves.PALETTE[:3], curves.MEAN):
        assert height_of(three, colour, 0) > 200  # of 390 pixels
        assert height_of(three, colour, 1) > 15
        assert height_of(three, colour, 2) > 5
    alone = drawn(curve(1))
    assert height_of(alone, curves.PALETTE[0], 0) > 300
    assert not height_of(alone, curves.MEAN, 0)
    diverged = curve(5, "failed")
    diverged.training[-1] = curves.Point(12, 1e9)
    assert height_of(drawn(curve(1), diverged), curves.PALETTE[0], 0) > 300  # not squeezed into a flat line
    assert three.shape == drawn(*(curve(seed) for seed in range(20))).shape
    assert not list(tmp_path.glob(".tmp*"))


def test_a_picture_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="cannot save"):
        curves.draw(tmp_path / "no" / "c.png", [], title="none", min_mean_f1=0.85)
