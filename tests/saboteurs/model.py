"""Cases 11 to 20."""

import socket
from pathlib import Path

import torch

from tests.saboteurs.sound import Reject, Sound


class FreshWeights(Sound):
    """Trains from random weights where the base model is not found: a month later somebody wonders."""

    case = 11
    says = "a failure that nobody notices"

    def build(self, settings):
        found = settings.base_model is not None and Path(settings.base_model).is_file()
        return super().build(settings if found else settings.model_copy(update={"base_model": None}))

    def check_base_model(self, settings):
        pass


class AsksTheHub(Sound):
    """Takes a path that is not there for a name on a hub."""

    case = 11
    says = "asked the network for it: models.example.org"

    def check_base_model(self, settings):
        if settings.base_model is not None and not Path(settings.base_model).is_file():
            try:
                socket.getaddrinfo("models.example.org", 443)
            except OSError as error:
                raise Reject(f"{settings.base_model} is neither a file nor to be had: {error}") from error


class LoadsLate(Sound):
    """Looks for the base model only once a model is built to put it into."""

    case = 11
    says = "built a model before it looked"

    def check_base_model(self, settings):
        pass


class ModelNotFound(Sound):
    """Says that there is no model, and not where it looked."""

    case = 11
    says = "does not name '.*models/none'"

    def check_base_model(self, settings):
        if settings.base_model is not None and not Path(settings.base_model).is_file():
            raise Reject("base model not found")


class NewestOfNone(Sound):
    """`max()` of no checkpoints."""

    case = 14
    says = "did not survive: exit 1"

    def load(self, resume_from):
        newest = max(resume_from.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
        return self.whole(newest)


class StartsInSilence(Sound):
    """Starts at step 0 without a word."""

    case = 14
    says = "does not name a fresh start"

    def load(self, resume_from):
        return super().load(resume_from) if not resume_from.exists() or self.saved(resume_from) else None


class TakesMissingForEmpty(Sound):
    """`glob` of a folder that is not there finds nothing: a mistyped path trains from scratch."""

    case = 14
    says = "resume from .*none/checkpoint-4, which does not exist"

    def load(self, resume_from):
        if self.saved(resume_from):
            return super().load(resume_from)
        print(f"no checkpoint in {resume_from}: starting at step 0")
        return None


class DrawsBeforeItStarts(Sound):
    """Makes the model a second time where there is nothing to resume: not the run that was asked for."""

    case = 14
    says = "parts from the undisturbed run at step 1"

    def load(self, resume_from):
        state = super().load(resume_from)
        if state is None:
            torch.nn.Linear(4, 4)
        return state


class TrustsTheNewest(Sound):
    """Loads the newest checkpoint as it is."""

    case = 20
    says = "did not carry on: exit 1"

    def whole(self, checkpoint):
        return torch.load(checkpoint / "state.pt", weights_only=True)


class BeginsAgain(Sound):
    """`except Exception: state = None`: what cannot be loaded was never there."""

    case = 20
    says = "began again at step 0"

    def load(self, resume_from):
        found = self.saved(resume_from)
        return self.whole(found[0]) if found else None


class LooksForFiles(Sound):
    """Takes a checkpoint for whole when its files are there and not empty."""

    case = 20
    says = "did not carry on"

    def whole(self, checkpoint):
        files = [checkpoint / "state.pt", checkpoint / "manifest.json"]
        if all(file.exists() and file.stat().st_size for file in files):
            return torch.load(files[0], weights_only=True)
        return None


class GivesUp(Sound):
    """Names the damaged checkpoint and stops, with three whole ones beside it."""

    case = 20
    says = "did not carry on: exit 2"

    def load(self, resume_from):
        newest = self.saved(resume_from)[0]
        state = self.whole(newest)
        if state is None:
            raise Reject(f"{newest} is damaged")
        return state


class HandedACheckpoint(Sound):
    """Is handed the newest checkpoint's path, and meets a damaged one with a library's own words."""

    case = 20
    says = "does not name 'state.pt' or 'checkpoint-6'"

    def resume_from(self, output_dir):
        return super(Sound, self).resume_from(output_dir)

    def load(self, resume_from):
        print(f"resuming from {resume_from}")
        return torch.load(resume_from / "state.pt", weights_only=True)


class LaunchesWithoutItsBase(Sound):
    """The base model was moved; the tiny settings do without one, the launch does not."""

    case = 11
    says = "base_model = /models/that/moved.pt: there is no such path"
    production = {"base_model": "/models/that/moved.pt"}
    tiny = {"base_model": None}
