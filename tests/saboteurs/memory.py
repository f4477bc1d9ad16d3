"""Cases 21 to 30."""

import os

import torch

from tests.saboteurs.sound import Failure, Sound


class SkipsTheBatchThatDoesNotFit(Sound):
    """Catches the error, says so, and goes on with the next batch: the rows are lost."""

    case = 23
    says = "was not done again in smaller parts|it took 7 steps"

    def step(self, *args):
        try:
            super().step(*args)
        except torch.OutOfMemoryError:
            print("out of memory, skipping batch")


class SwallowsOutOfMemory(Sound):
    """`except RuntimeError: continue`, the shortest way to train on less data than one believes."""

    case = 23
    says = "does not name|not done again"

    def step(self, *args):
        try:
            super().step(*args)
        except RuntimeError:
            return


class HalvesTheEffectiveBatch(Sound):
    """Recovers with half a batch and forgets to accumulate the other half."""

    case = 23
    says = "was not done again|saw 4 examples"

    def step(self, model, optimizer, scaler, batch, *rest):
        try:
            super().step(model, optimizer, scaler, batch, *rest)
        except torch.OutOfMemoryError:
            print("out of memory: halving the batch")
            super().step(model, optimizer, scaler, [part[: len(part) // 2] for part in batch], *rest)


class HidesTheReason(Sound):
    """Ends, but with a message of its own that does not say why."""

    case = 23
    says = "does not name"

    def step(self, *args):
        try:
            super().step(*args)
        except torch.OutOfMemoryError:
            raise Failure("training step failed") from None


class GoesOnWithoutSaving(Sound):
    """A save that fails is only a warning: the job ends well, and nothing is there."""

    case = 25
    says = "exit 0"

    def save(self, output_dir, state):
        try:
            super().save(output_dir, state)
        except Failure as error:
            print(f"warning: {error}")


class LeavesHalfACheckpoint(Sound):
    """Writes under the final name: a full disk leaves half a checkpoint there."""

    case = 25
    says = "does not name|no good"

    def save(self, output_dir, state):
        final = output_dir / f"checkpoint-{state['step']}"
        final.mkdir()
        try:
            torch.save(state, final / "state.pt")
        except RuntimeError as error:
            raise Failure(f"cannot save {final}: {error}") from error


class DoesNotSayWhere(Sound):
    """Torch's own message for a full disk, "iostream error", tells nobody which disk."""

    case = 25
    says = "does not name"

    def save(self, output_dir, state):
        beside, final = output_dir / ".new", output_dir / f"checkpoint-{state['step']}"
        beside.mkdir()
        try:
            torch.save(state, beside / "state.pt")
        except RuntimeError:
            (beside / "state.pt").unlink()
            beside.rmdir()
            raise Failure("iostream error") from None
        os.rename(beside, final)

    def whole(self, checkpoint):
        return torch.load(checkpoint / "state.pt", weights_only=True)


class FallsBackInSilence(Sound):
    """`"cuda" if torch.cuda.is_available() else "cpu"`, and not a word."""

    case = 26
    says = "does not name"

    def device(self, settings):
        return "cuda" if torch.cuda.is_available() else "cpu"


class IgnoresTheDemand(Sound):
    """A GPU was demanded, and it trains on the CPU all the same."""

    case = 26
    says = "exit 0"

    def device(self, settings):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        print(f"training on {device}")
        return device
