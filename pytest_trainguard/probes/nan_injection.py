"""`nan_injection`: numbers that are none, put where they really come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trainguard import faults
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.launch.protocol import RunOptions, RunRequest
from pytest_trainguard.probes.guard import Guard

if TYPE_CHECKING:
    from typing_extensions import Unpack

PLACES = ("batch", "activation", "gradient", "loss")


class NanInjection:
    """Put NaN (or infinity) into one place of one step, and see how the run ends."""

    def __init__(self, guard: Guard):
        self.guard = guard

    def __call__(
        self, where: str = "loss", step: int = 4, *, number: str = "nan", **options: Unpack[RunOptions]
    ) -> Outcome:
        """Run with the number in it.

        Args:
            where: one of `PLACES`. `loss` stands for every output of the model; where a batch holds whole numbers
                only, `batch` stands for the first layer's output.
            step: the optimizer step, counted from 1.
            number: `nan`, `inf`, or `overflow` (finite numbers so large that the loss overflows).
            options: of `Guard.run`.

        Raises:
            NotApplicable: the place does not exist in this program.
        """
        did = _did(where, step, number)
        if options.get("settings"):
            did += ", with " + ", ".join(f"{name} = {value}" for name, value in options["settings"].items())
        options["fault"] = _NUMBERS[number][0](where, step)
        return self.guard.run(did, **options)

    def everywhere(self, step: int = 4, *, number: str = "nan") -> list[Outcome]:
        """One run for each of the `PLACES` that exist in this program.

        Raises:
            NotApplicable: none of them does.
        """
        make = _NUMBERS[number][0]
        return self.guard.run_all([RunRequest(_did(where, step, number), fault=make(where, step)) for where in PLACES])


def _did(where: str, step: int, number: str) -> str:
    return f"{_NUMBERS[number][1]} the {where} of step {step}"


_NUMBERS = {
    "nan": (faults.nan, "put NaN into"),
    "inf": (faults.inf, "put infinity into"),
    "overflow": (faults.overflow, "put numbers that overflow into"),
}
