"""The number of optimizer steps, at all its edges."""

from __future__ import annotations

import pytest

from trainers.common.batches import Plan, plan
from trainers.common.errors import InputError


@pytest.mark.parametrize(
    ("rows", "batch_size", "accumulation", "epochs", "max_steps", "before", "expected"),
    [
        (64, 8, 1, 1, None, 0, Plan(8, 8, 8)),
        (65, 8, 1, 1, None, 0, Plan(9, 9, 9)),  # a last batch of one row
        (64, 8, 2, 1, None, 0, Plan(4, 4, 4)),
        (65, 8, 2, 1, None, 0, Plan(5, 5, 5)),  # a last window of one row
        (73, 8, 2, 1, None, 0, Plan(5, 5, 5)),  # a last window of two forward passes, the second short
        (1, 8, 4, 1, None, 0, Plan(1, 1, 1)),  # fewer rows than a batch
        (9, 8, 4, 1, None, 0, Plan(1, 1, 1)),  # fewer rows than a window
        (1, 1, 1, 1, None, 0, Plan(1, 1, 1)),
        (65, 8, 2, 3, None, 0, Plan(5, 15, 15)),  # every epoch has its own short window
        (64, 8, 1, 2, 3, 0, Plan(8, 16, 3)),
        (64, 8, 1, 2, 100, 0, Plan(8, 16, 100)),  # max_steps decides, also beyond the epochs
        (64, 8, 1, 2, None, 30, Plan(8, 46, 46)),  # the optimizer step goes on from file to file
        (64, 8, 1, 2, 5, 30, Plan(8, 46, 35)),  # and max_steps counts for each file by itself
        (20_000, 128, 128, 1, None, 0, Plan(2, 2, 2)),
    ],
)
def test_plan(
    rows: int,
    batch_size: int,
    accumulation: int,
    epochs: int,
    max_steps: int | None,
    before: int,
    expected: Plan,
) -> None:
    made = plan(
        rows, batch_size=batch_size, gradient_accumulation=accumulation, max_epochs=epochs, max_steps=max_steps,
        before=before,
    )  # fmt: skip
    assert made == expected


@pytest.mark.parametrize("rows", [1, 7, 64, 65, 1000])
def test_the_micro_batch_does_not_change_the_steps(rows: int) -> None:
    """Half the micro-batch and twice the accumulation: the same effective batch, the same steps."""
    plans = {plan(rows, batch_size=16 >> n, gradient_accumulation=1 << n, max_epochs=3) for n in range(5)}
    assert len(plans) == 1


def test_zero_rows_are_rejected_with_the_number() -> None:
    with pytest.raises(InputError, match="0 rows to train on"):
        plan(0, batch_size=8, gradient_accumulation=1, max_epochs=1)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"gradient_accumulation": 0}, {"max_epochs": 0}, {"before": -1}])
def test_what_no_setting_allows_divides_nothing(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="64 rows"):
        plan(64, **{"batch_size": 8, "gradient_accumulation": 1, "max_epochs": 1, **wrong})
