"""Cases 71 to 80.

The defects of the static half stand in methods that are never called: that is how they come to be shipped.
"""

import contextlib
import os
import sys
import traceback

from tests.saboteurs.sound import Sound


class GoesOnAfterAnything(Sound):
    """`except Exception` around the step: what was meant for bad batches eats every mistake in the code."""

    case = 71
    grade = "misleads"
    says = "exit 0"

    def step(self, *args):
        try:
            super().step(*args)
        except Exception as error:
            print(f"warning: {error}", file=sys.stderr)


class ShowsNoTraceback(Sound):
    """Prints the message alone, so that nobody can tell where it came from."""

    case = 72
    grade = "unclear"
    says = "shows no traceback"

    def step(self, *args):
        try:
            super().step(*args)
        except Exception as error:
            sys.exit(f"{type(error).__name__}: {error}")


class EndsWellAfterFailing(Sound):
    """Prints the traceback, cleans up, and exits 0: the queue takes it for done."""

    case = 76
    grade = "misleads"
    says = "exit 0"

    def fit(self, *args):
        try:
            super().fit(*args)
        except Exception:
            traceback.print_exc()


class SavesOnTheWayOut(Sound):
    """Saves in `finally`, under the final name, whatever the state is: the next start trusts it."""

    case = 71
    grade = "misleads"
    says = "parts from|did not carry on|began again|no good"

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        try:
            super().step(model, optimizer, scaler, batch, settings, number, device)
        except Exception:
            for parameter in model.parameters():
                parameter.data.zero_()
            self.save(self._output, self.state(model, optimizer, scaler, number))
            raise

    def fit(self, settings, rows, output_dir, *rest):
        self._output = output_dir
        super().fit(settings, rows, output_dir, *rest)


class LeavesItsTemporaryFolder(Sound):
    """No clean-up when a save fails: the half that was written stays."""

    case = 76
    grade = "unclear"
    says = "temporary files or folders left behind"

    def save(self, output_dir, state):
        import torch

        beside = output_dir / f".tmp-checkpoint-{state['step']}"
        beside.mkdir()
        torch.save({"step": state["step"]}, beside / "progress.pt")
        torch.save(state, beside / "state.pt")
        self.sync(beside / "state.pt")
        os.rename(beside, output_dir / f"checkpoint-{state['step']}")

    def whole(self, checkpoint):
        import torch

        return torch.load(checkpoint / "state.pt", weights_only=True)


class TakesAnAttributeForAnOption(Sound):
    """`except AttributeError`, since one of the schedulers has no such method; so has nothing else, it seems."""

    case = 73
    grade = "misleads"
    says = "exit 0"

    def step(self, *args):
        try:
            super().step(*args)
        except AttributeError:
            print("no such option: skipped")


class SkipsARowWithoutAKey(Sound):
    """A row without the key is left out, and with it the step that it was in."""

    case = 74
    grade = "misleads"
    says = "exit 0"

    def step(self, *args):
        try:
            super().step(*args)
        except KeyError as error:
            print(f"skipped a batch without {error}")


class SaysOnlyTheKey(Sound):
    """`print(error)` of a KeyError is the key, and of its kind not a word."""

    case = 74
    grade = "unclear"
    says = "does not name 'KeyError'"

    def fit(self, *args):
        try:
            super().fit(*args)
        except KeyError as error:
            sys.exit(f"failed: {error}")


class EndsWithTheIndex(Sound):
    """An IndexError is the end of the data."""

    case = 75
    grade = "misleads"
    says = "exit 0"

    def fit(self, *args):
        with contextlib.suppress(IndexError):
            super().fit(*args)


class TakesAValueForABadBatch(Sound):
    """`except ValueError: continue`, for batches that do not parse."""

    case = 77
    grade = "misleads"
    says = "exit 0"

    def step(self, *args):
        with contextlib.suppress(ValueError):
            super().step(*args)


class RaisesWithoutItsCause(Sound):
    """Raises an exception of its own `from None`: the type and the place of the first are gone."""

    case = 77
    grade = "unclear"
    says = "does not name 'ValueError'"

    def fit(self, *args):
        try:
            super().fit(*args)
        except ValueError:
            raise RuntimeError("training failed") from None


class CountsNothingAsZero(Sound):
    """A division by zero is a zero: there were no answers, so none was right."""

    case = 78
    grade = "misleads"
    says = "exit 0"

    def step(self, *args):
        try:
            super().step(*args)
        except ZeroDivisionError:
            print("accuracy 0")


class SavesAnythingInTheEnd(Sound):
    """Saves under the final name of the next step, whatever is in the middle of being computed."""

    case = 79
    grade = "misleads"
    says = "parts from|did not carry on|began again|no good"

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        try:
            super().step(model, optimizer, scaler, batch, settings, number, device)
        except RecursionError:
            for parameter in model.parameters():
                parameter.data.mul_(0.5)
            self.save(self._output, self.state(model, optimizer, scaler, number))
            raise

    def fit(self, settings, rows, output_dir, *rest):
        self._output = output_dir
        super().fit(settings, rows, output_dir, *rest)


class TriesWithLess(Sound):
    """Out of memory: gives up the batch and goes on with the next, in silence."""

    case = 80
    grade = "misleads"
    says = "exit 0"

    def step(self, *args):
        with contextlib.suppress(MemoryError):
            super().step(*args)


class TakesMemoryForARoom(Sound):
    """`save` takes everything for a full disk, and leaves its half behind for a later look."""

    case = 80
    grade = "unclear"
    says = "temporary files or folders left behind|does not name 'MemoryError'"

    def save(self, output_dir, state):
        try:
            super().save(output_dir, state)
        except MemoryError:
            (output_dir / ".tmp-rest").mkdir(exist_ok=True)
            raise
