"""What is minimised: cross-entropy, with capped class weights and focal loss where they are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def capped_weights(labels: Iterable[int], cap: float, classes: int = 2) -> list[float]:
    """A weight for each class: its inverse frequency (1 where the classes are equal), at most ``cap``.

    The cap keeps a rare class from making the gradient noisy; a class without a row weighs 1.
    """
    counts = Counter(labels)
    rows = counts.total()
    return [min(cap, rows / (classes * counts[label])) if counts[label] else 1.0 for label in range(classes)]


@dataclass(frozen=True)
class Objective:
    """From the cross-entropy of each row to what is minimised.

    Attributes:
        weights: of each class.
        gamma: of the focal loss (Lin et al. 2017, https://arxiv.org/abs/1708.02002); 0 leaves the
            cross-entropy as it is.
    """

    weights: tuple[float, ...] = (1.0, 1.0)
    gamma: float = 0.0

    def __call__(self, entropies: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of each row, of shape (rows,).

        Args:
            entropies: cross-entropy of each row, of shape (rows,).
            labels: int64, of shape (rows,), on the same device.
        """
        losses = entropies
        if self.gamma:
            # expm1: exact near 0; the floor: a power of 0 below 1 has no finite slope there.
            losses = (-(-entropies).expm1()).clamp_min(1e-12) ** self.gamma * losses
        if any(weight != 1 for weight in self.weights):
            losses = losses * losses.new_tensor(self.weights)[labels]
        return losses
