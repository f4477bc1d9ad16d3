"""`nan_injection`: numbers that are none, put where they really come from."""

from __future__ import annotations

from typing import Any

from pytest_trainguard import faults
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.probes.guard import Guard

PLACES = ("batch", "activation", "gradient", "loss")


class NanInjection:
    """Put NaN (or infinity) into one place of one step, and see how the run ends."""

    def __init__(self, guard: Guard):
        self.guard = guard

    def __call__(self, where: str = "loss", step: int = 4, *, number: str = "nan", **options: Any) -> Outcome:
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
        request = _request(where, step, number)
        if options.get("settings"):
            request["did"] += ", with " + ", ".join(f"{name} = {value}" for name, value in options["settings"].items())
        return self.guard.run(**request, **options)

    def everywhere(self, step: int = 4, *, number: str = "nan") -> list[Outcome]:
        """One run for each of the `PLACES` that exist in this program.

        Raises:
            NotApplicable: none of them does.
        """
        return self.guard.run_all([_request(where, step, number) for where in PLACES])


def _request(where: str, step: int, number: str) -> dict[str, Any]:
    make, words = _NUMBERS[number]
    return {"did": f"{words} the {where} of step {step}", "fault": make(where, step)}


_NUMBERS = {
    "nan": (faults.nan, "put NaN into"),
    "inf": (faults.inf, "put infinity into"),
    "overflow": (faults.overflow, "put numbers that overflow into"),
}
