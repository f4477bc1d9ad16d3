"""Cases 71 to 80.

The defects of the static half stand in methods that are never called: that is how they come to be shipped.
"""

import os
import sys
import traceback

from tests.saboteurs.sound import Sound


class GoesOnAfterAnything(Sound):
    """`except Exception` around the step: what was meant for bad batches eats every mistake in the code."""

    case = 71
    says = "exit 0"

    def step(self, *args):
        try:
            super().step(*args)
        except Exception as error:
            print(f"warning: {error}", file=sys.stderr)


class ShowsNoTraceback(Sound):
    """Prints the message alone, so that nobody can tell where it came from."""

    case = 72
    says = "shows no traceback"

    def step(self, *args):
        try:
            super().step(*args)
        except Exception as error:
            sys.exit(f"{type(error).__name__}: {error}")


class EndsWellAfterFailing(Sound):
    """Prints the traceback, cleans up, and exits 0: the queue takes it for done."""

    case = 76
    says = "exit 0"

    def fit(self, *args):
        try:
            super().fit(*args)
        except Exception:
            traceback.print_exc()


class SavesOnTheWayOut(Sound):
    """Saves in `finally`, under the final name, whatever the state is: the next start trusts it."""

    case = 71
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
