"""What two runs saved, held against each other by name: what counts, and what is left alone."""

import pytest
import torch

from pytest_trainguard.probes.saved_state import find_differing


def save(folder, name, content):
    folder.mkdir(exist_ok=True)
    torch.save(content, folder / name)
    return folder / name


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        ({"ema": {"w": torch.zeros(4)}}, {"ema": {"w": torch.ones(4)}}, {"s.pt: ema.w": "4 of 4 values are others"}),
        (
            {"scheduler": {"last_epoch": 2}},
            {"scheduler": {"last_epoch": 5}},
            {"s.pt: scheduler.last_epoch": "2, undisturbed 5"},
        ),
        ({"n_averaged": torch.tensor(1)}, {"n_averaged": torch.tensor(5)}, {"s.pt: n_averaged": "1, undisturbed 5"}),
        ({"w": torch.zeros(2, 1)}, {"w": torch.zeros(2)}, {"s.pt: w": "shape [2, 1], undisturbed [2]"}),
        # A random state, a time, the best loss so far; what is no number in both; what only one of them has.
        ({"rng": torch.tensor([1, 2], dtype=torch.uint8)}, {"rng": torch.tensor([3, 2], dtype=torch.uint8)}, {}),
        ({"seconds": 1.5, "best": torch.tensor(0.1)}, {"seconds": 9.0, "best": torch.tensor(0.2)}, {}),
        ({"w": torch.tensor([1.0, float("nan")])}, {"w": torch.tensor([1.0, float("nan")])}, {}),
        ({}, {"w": torch.zeros(2)}, {}),
    ],
)
def test_find_differing(tmp_path, ours, theirs, told):
    files = [[save(tmp_path / folder, "s.pt", content)] for folder, content in (("ours", ours), ("theirs", theirs))]
    assert find_differing(*files) == told


def test_a_file_that_cannot_be_loaded_is_for_others_to_tell(tmp_path):
    whole = save(tmp_path / "whole", "s.pt", {"w": torch.zeros(2)})
    (tmp_path / "cut").mkdir()
    cut = tmp_path / "cut" / "s.pt"
    cut.write_bytes(whole.read_bytes()[:100])
    assert find_differing([cut], [whole]) == {}
