"""Case 66's judgement of a loss, by the losses of a run, of one in which nothing is learnt, and of a longer one."""

import random
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import pytest

from pytest_trainguard import NotApplicable, Outcome, Recording, TinyOverfit
from pytest_trainguard.probes.tiny_overfit import LAST, Overfit


def outcome_of(losses, optimizers=1, maximises=False):
    """`losses`: of each step; None where a step has none of its own."""
    events = [
        {"event": "step", "losses": [] if loss is None else [loss], "loss": float("nan") if loss is None else loss,
         "optimizer": number % optimizers, "maximises": maximises}
        for number, loss in enumerate(losses)
    ]  # fmt: skip
    return Outcome(
        did="trained", exit=0, output="", output_bytes=0, recording=Recording(events), output_dir=Path(), before={},
        after={}, seconds=1.0, peak_rss=0, leftovers=(), timed_out=False, stack="", pid=1,
    )  # fmt: skip


def problem(usual, still, later=None, *, labels=None, below=None, **kind):
    description = SimpleNamespace(overfit_below=below, labels=labels, overfit={})
    subject = SimpleNamespace(
        description=description, make_data=lambda *given: None, settings=SimpleNamespace(role=lambda name: None)
    )
    outcomes = [outcome_of(still, **kind), outcome_of(later or usual, **kind)]
    guard = SimpleNamespace(subject=subject, folder=Path(), run_all=lambda requests: outcomes)
    seen = [loss for loss in usual if loss is not None]
    result = Overfit(seen[0], fmean(seen[-LAST:]), outcome_of(usual, **kind))
    return TinyOverfit(guard).find_problem(result)


def noisy(start, end, spread=0.05, steps=50):
    """Falls for half of the steps, then stays."""
    draw = random.Random(0)
    return [start + (end - start) * min(1.0, 2 * i / steps) + draw.gauss(0, spread) for i in range(steps)]


@pytest.mark.parametrize(
    ("usual", "options"),
    [
        (noisy(0.7, 0.01, 0.0), {"labels": "y"}),
        (noisy(600, 100, 5), {"labels": "y", "still": noisy(600, 600, 5)}),
        (noisy(1.65, 0.7), {"still": noisy(1.65, 1.65)}),
        (noisy(-1.5, -3.5), {"still": noisy(-1.5, -1.5)}),
        (noisy(0.1, -2.0), {"still": noisy(0.1, 0.1, 0.2)}),
        (noisy(1.0, 2.0), {"still": noisy(1.0, 1.0), "maximises": True}),
        (noisy(2.3, 2.1, 0.01), {"still": noisy(2.3, 2.3, 0.01), "later": noisy(2.3, 0.2, 0.01, 150)}),
        (noisy(2.3, 2.1), {"below": 2.2}),
        ([loss for pair in zip(noisy(1.4, 1.2), noisy(0.7, 0.9), strict=True) for loss in pair],
         {"still": [1.4, 0.7] * 50, "optimizers": 2}),
        ([1.4, 0.7] * 50, {"still": [1.4, 0.7] * 50, "optimizers": 2,
          "later": [1.4, 0.7] * 50 + [loss for pair in zip(noisy(1.4, 1.2), noisy(0.7, 0.9), strict=True)
                                      for loss in pair] * 2}),
        ([loss for one in noisy(0.7, 0.2) for loss in (one, None)], {"still": [0.7, None] * 50, "optimizers": 2}),
    ],
    ids=["by heart", "a regression", "noise that is predicted", "a density", "across 0", "maximised", "slowly",
         "a stated goal", "adversaries", "adversaries, slowly", "two steps from one loss"],
)  # fmt: skip
def test_what_is_learnt_passes(usual, options):
    assert problem(usual, **{"still": usual, **options}) is None


@pytest.mark.parametrize(
    ("usual", "options", "told"),
    [
        (noisy(0.7, 0.7), {}, r"the loss went from 0.\d+ to 0.\d+ \(\d+% (lower|higher)\); after 50 steps"),
        (noisy(0.72, 0.69), {"labels": "y", "still": noisy(0.72, 0.72)}, "it stands at 0.7.., give or take 0.0"),
        (noisy(1.0, 0.5), {"labels": "y", "still": noisy(1.0, 1.0)}, "lower"),
        (noisy(-1.5, -1.5, 0), {}, r"the loss went from -1.500 to -1.500 \(0.000 lower\)"),
        (noisy(-1.5, -1.6, 0), {"still": noisy(-1.5, -1.5)}, r"from -1.500 to -1.600 \(0.100 lower\)"),
        ([1.4, 0.7] * 50, {"optimizers": 2}, "undone it stands at .*, and that of optimizer 1, 2 of 2 stays there"),
        (noisy(2.3, 2.1), {"below": 2.0}, "is to come below 2"),
    ],
    ids=["nothing", "the share of each label", "half of what labels can give", "a density", "hardly", "adversaries",
         "a stated goal"],
)  # fmt: skip
def test_what_is_not_learnt_is_told(usual, options, told):
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(problem(usual, **{"still": usual, **options}))


def test_a_loss_around_nothing_is_not_judged():
    losses = noisy(0, 0, 0.3)
    with pytest.raises(NotApplicable, match=r"stands around 0 .* say where it must come, overfit_below = "):
        problem(losses, noisy(0, 0, 0.3))


def test_what_learns_slowly_is_told_apart_from_what_came_to_rest():
    """A loss that is still on its way down, and one that learnt how often each class comes, and no more."""
    from pytest_trainguard.probes.tiny_overfit import _falls_on

    draw = random.Random(0)

    def noisy_line(start, end, steps):
        return [start + (end - start) * step / steps + draw.gauss(0, 0.02) for step in range(steps)]

    still = noisy_line(1.74, 1.74, 50)
    assert _falls_on(noisy_line(1.74, 1.55, 50), noisy_line(1.74, 1.3, 150), still)
    assert not _falls_on(noisy_line(1.74, 1.55, 50), noisy_line(1.55, 1.55, 150), still)
    assert not _falls_on(noisy_line(1.74, 1.74, 50), noisy_line(1.74, 1.74, 150), still)
    tenth = [1.74 - 0.0002 * step for step in range(150)]  # without noise each thousandth would be plain
    assert not _falls_on(tenth[:50], tenth, [1.74] * 50)
    assert not _falls_on(noisy_line(1.74, 1.55, 50), noisy_line(1.74, 1.3, 50), still)
