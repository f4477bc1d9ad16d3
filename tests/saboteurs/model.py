"""Cases 11 to 20."""

import dataclasses
import json
import socket
from pathlib import Path

import torch

from tests.saboteurs.sound import Reject, Sound
from tests.saboteurs.variants import Checksummed


class FreshWeights(Sound):
    """Trains from random weights where the base model is not found: a month later somebody wonders."""

    case = 11
    grade = "misleads"
    says = "a failure that nobody notices"

    def build(self, settings):
        found = settings.base_model is not None and Path(settings.base_model).is_file()
        return super().build(settings if found else settings.model_copy(update={"base_model": None}))

    def check_base_model(self, settings):
        pass


class AsksTheHub(Sound):
    """Takes a path that is not there for a name on a hub."""

    case = 11
    grade = "wastes"
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
    grade = "unclear"
    says = "built a model before it looked"

    def check_base_model(self, settings):
        pass


class ModelNotFound(Sound):
    """Says that there is no model, and not where it looked."""

    case = 11
    grade = "unclear"
    says = "does not name '.*models/none'"

    def check_base_model(self, settings):
        if settings.base_model is not None and not Path(settings.base_model).is_file():
            raise Reject("base model not found")


class LoadsAnyWeights(Sound):
    """What can be read is loaded; the loss is what finds out, or nobody."""

    case = 12
    grade = "unclear"
    says = "flipped a bit in each of some weights in base.pt.*(does not name 'base.pt'|a failure that nobody notices)"

    def load_base(self, path):
        try:
            return torch.load(path, weights_only=True)
        except Exception as error:
            raise Reject(f"base_model: {path}: {error}") from error


class NewWeightsInstead(Sound):
    """`except Exception`: what cannot be loaded is trained from scratch."""

    case = 12
    grade = "misleads"
    says = "cut in half base.pt.*a failure that nobody notices"

    def build(self, settings):
        try:
            return super().build(settings)
        except Reject:
            return super().build(settings.model_copy(update={"base_model": None}))


class CannotLoadTheModel(Sound):
    """Says that the model cannot be loaded; it has forty files."""

    case = 12
    grade = "unclear"
    says = "does not name 'base.pt'"

    def load_base(self, path):
        try:
            return super().load_base(path)
        except Reject as error:
            raise Reject("the base model cannot be loaded") from error


class LeavesTheAdapterOut(Sound):
    """`strict=False`: an adapter that does not fit changes nothing, and says nothing."""

    case = 13
    grade = "misleads"
    says = "a failure that nobody notices"

    def load_adapter(self, settings, model):
        try:
            super().load_adapter(settings, model)
        except Reject:
            return


class AdapterOfAnother(Sound):
    """Says that it is another base's: of which, and what is wanted?"""

    case = 13
    grade = "unclear"
    says = "does not name both bases, or both shapes"

    def load_adapter(self, settings, model):
        try:
            super().load_adapter(settings, model)
        except Reject as error:
            raise Reject(f"adapter: {settings.adapter} is one of another base than {self.base(settings)}") from error


class WhichAdapter(Sound):
    """torch's own words on two shapes, of a file that it does not name."""

    case = 13
    grade = "unclear"
    says = "does not name '.*adapter'"

    def load_adapter(self, settings, model):
        there = torch.load(Path(settings.adapter) / "adapter_model.pt", weights_only=True)["last.weight"]
        if there.shape != self.last(model).shape:
            raise Reject(f"size mismatch: {list(there.shape)} and {list(self.last(model).shape)}")


class NewestOfNone(Sound):
    """`max()` of no checkpoints."""

    case = 14
    grade = "wastes"
    says = "did not survive: exit 1"

    def load(self, resume_from):
        newest = max(resume_from.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
        return self.whole(newest)


class StartsInSilence(Sound):
    """Starts at step 0 without a word."""

    case = 14
    grade = "unclear"
    says = "does not name a fresh start"

    def load(self, resume_from):
        return super().load(resume_from) if not resume_from.exists() or self.saved(resume_from) else None


class TakesMissingForEmpty(Sound):
    """`glob` of a folder that is not there finds nothing: a mistyped path trains from scratch."""

    case = 14
    grade = "misleads"
    says = "resume from .*none/checkpoint-4, which does not exist"

    def load(self, resume_from):
        if self.saved(resume_from):
            return super().load(resume_from)
        print(f"no checkpoint in {resume_from}: starting at step 0")
        return None


class LooksInItsOutputFolder(Sound):
    """Carries on from what is in its output folder, whatever path it is given. Sound."""

    only = (14, 15, 41)

    def train(self, run):
        run = dataclasses.replace(run, resume_from=run.output_dir if run.resume_from else None)
        return super().train(run)


class DrawsBeforeItStarts(Sound):
    """Makes the model a second time where there is nothing to resume: not the run that was asked for."""

    case = 14
    grade = "misleads"
    says = "parts from the undisturbed run at step 1"

    def load(self, resume_from):
        state = super().load(resume_from)
        if state is None:
            torch.nn.Linear(4, 4)
        return state


class StartsOverAnEmptyOne(Sound):
    """Finds nothing to load in the newest folder, and takes that for a fresh start, in silence."""

    case = 15
    grade = "loses"
    says = "does not name a fresh start"

    def load(self, resume_from):
        found = self.saved(resume_from)
        return self.whole(found[0]) if found else super().load(resume_from)


class CannotLoad(Sound):
    """Fails, and does not say on what."""

    case = 15
    grade = "loses"
    says = "an empty folder checkpoint-8: its message does not name 'checkpoint-8' or 'alone'"

    def load(self, resume_from):
        found = self.saved(resume_from)
        if found and self.whole(found[0]) is None:
            raise Reject("the checkpoint could not be loaded")
        return super().load(resume_from)


class ForgetsTheWholeOnes(Sound):
    """Says that it starts afresh where the newest folder is empty, with three whole checkpoints beside it."""

    case = 15
    grade = "loses"
    says = "the newest checkpoint.*began again at step 0"

    def load(self, resume_from):
        found = self.saved(resume_from)
        if found and not any(found[0].iterdir()):
            print(f"{found[0]} is empty: starting from scratch")
            return None
        return super().load(resume_from)


class TakesAnEmptyForFresh(Sound):
    """A checkpoint that was named, and has nothing in it, is no fresh start."""

    case = 15
    grade = "misleads"
    says = "asked to resume from .*a failure that nobody notices"

    def load(self, resume_from):
        if not any(resume_from.iterdir()):
            print(f"no checkpoint in {resume_from}: starting at step 0")
            return None
        return super().load(resume_from)


class Unchecked:
    """No checksums, as most programs have none: the newest checkpoint is loaded as it is."""

    def load(self, resume_from):
        found = self.saved(resume_from)
        if not found:
            return super().load(resume_from)
        state = torch.load(found[0] / "state.pt", weights_only=True)
        return {**state, "step": self.step_of(state)}

    def step_of(self, state):
        step = state.get("step")
        if type(step) is not int:
            raise Reject(f"state.pt: its step is {step!r}")
        return step


class StepZeroByDefault(Unchecked, Sound):
    """`state.get("step", 0)`."""

    case = 16
    grade = "loses"
    says = "began again at step 0"

    def step_of(self, state):
        return state.get("step", 0)


class NoSuchKey(Unchecked, Sound):
    """`KeyError: 'step'`, and in which of forty files?"""

    case = 16
    grade = "unclear"
    says = "does not name 'state.pt' or 'checkpoint-6'"

    def step_of(self, state):
        return state["step"]


class TakesTheManifestFor(Sound):
    """A checkpoint without its manifest was never there, and neither is any before it."""

    case = 16
    grade = "loses"
    says = "removed checkpoint-6/manifest.json.*began again at step 0"

    def saved(self, output_dir):
        found = super().saved(output_dir)
        return found if found and (found[0] / "manifest.json").exists() else []


class StepZeroUnderAChecksum(Checksummed):
    """Checks every file against its SHA-256, and then `.get("step", 0)`: the checksum of a bad file is right."""

    case = 16
    grade = "loses"
    says = "took 'step' out of checkpoint-6/trainer_state.json.*began again at step 0"

    def step_in(self, checkpoint):
        return json.loads((checkpoint / "trainer_state.json").read_bytes()).get("step", 0)


class LoadsWhatIsListed(Checksummed):
    """What the manifest does not list is not missed: dropout goes on from wherever its generator is."""

    case = 16
    grade = "misleads"
    says = "removed checkpoint-6/rng.pt.*it parts from the undisturbed run"

    def parts_in(self, checkpoint):
        there = {part: checkpoint / f"{part}.pt" for part in self.PARTS}
        return {part: torch.load(file, weights_only=True) for part, file in there.items() if file.exists()}

    def restore(self, state, model, optimizer, scaler):
        super().restore(
            {"rng": torch.get_rng_state(), "scaler": scaler.state_dict(), **state}, model, optimizer, scaler
        )


class RoundsTheStep(Unchecked, Sound):
    """`int(step)`: half of the steps are taken twice."""

    case = 17
    grade = "misleads"
    says = "set 'step' to 3.5 .*it parts from the undisturbed run"

    def step_of(self, state):
        return int(state["step"]) if isinstance(state["step"], float) else super().step_of(state)


class StepOrZero(Unchecked, Sound):
    """`int(state["step"] or 0)`."""

    case = 17
    grade = "loses"
    says = "set 'step' to null .*began again at step 0"

    def step_of(self, state):
        return super().step_of(state) if state["step"] is not None else 0


class CountsToMany(Unchecked, Sound):
    """The step is whatever it is: `range("many", 8)` tells that a str is no integer."""

    case = 17
    grade = "unclear"
    says = 'set .step. to "many" .*does not name .state.pt. or .checkpoint-6.'

    def step_of(self, state):
        return state["step"]


class StumblesOverAList(Sound):
    """`manifest["state.pt"]` of a list."""

    case = 17
    grade = "unclear"
    says = "left an empty list in manifest.json.*does not name"

    def whole(self, checkpoint):
        manifest = (checkpoint / "manifest.json").read_text()
        if manifest == "[]":
            raise TypeError("list indices must be integers or slices, not str")
        return super().whole(checkpoint)


class RoundsUnderAChecksum(Checksummed):
    """Trusts what its checksum vouches for: `int(step)`."""

    case = 17
    grade = "misleads"
    says = "set 'step' to 3.5 in trainer_state.json.*it parts from the undisturbed run"

    def step_in(self, checkpoint):
        step = json.loads((checkpoint / "trainer_state.json").read_bytes())["step"]
        return int(step) if isinstance(step, float) else super().step_in(checkpoint)


class StumblesUnderAChecksum(Checksummed):
    """The state is a table, its checksum says so: `list` has no attribute `get`, in which of its files?"""

    case = 17
    grade = "unclear"
    says = "left an empty list in trainer_state.json.*does not name"

    def step_in(self, checkpoint):
        if json.loads((checkpoint / "trainer_state.json").read_bytes()) == []:
            raise Reject("'list' object has no attribute 'get'")
        return super().step_in(checkpoint)


class LoadsWhatFits(Sound):
    """`strict=False`, with what does not fit taken out first: most of the model is new."""

    case = 18
    grade = "misleads"
    says = "a failure that nobody notices"

    def restore(self, state, model, optimizer, scaler):
        new = model.state_dict()
        fits = {name: value for name, value in state["model"].items() if value.shape == new[name].shape}
        model.load_state_dict(fits, strict=False)


class TakesTheOldSize(Sound):
    """Trains on at the checkpoint's size, whatever the settings say."""

    case = 18
    grade = "misleads"
    says = "a failure that nobody notices"

    def fit(self, settings, rows, output_dir, max_steps, resume_from, seed):
        state = self.load(resume_from) if resume_from else None
        hidden = len(state["model"]["0.bias"]) if state else settings.hidden
        settings = settings.model_copy(update={"hidden": hidden})
        super().fit(settings, rows, output_dir, max_steps, resume_from, seed)


class DoesNotFit(Sound):
    """Says that it does not fit, and not where."""

    case = 18
    grade = "unclear"
    says = "does not name the first mismatch"

    def restore(self, state, model, optimizer, scaler):
        try:
            super().restore(state, model, optimizer, scaler)
        except Reject as error:
            raise Reject("the checkpoint does not fit the model") from error


class NeverLooksAtTheVersion(Sound):
    """Writes a version, and never reads it."""

    case = 19
    grade = "misleads"
    says = "took a checkpoint of version 0 for one of version 1"

    def check_version(self, version, checkpoint):
        pass


class TrustsTheChecksum(Checksummed):
    """A file that is as it was written is one that can be read: by another version of the program?"""

    case = 19
    grade = "misleads"
    says = "took a checkpoint of version 0 for one of version 1"

    def check_version(self, version, checkpoint):
        pass


class UnsupportedVersion(Sound):
    """Says that it is too old: how old, and what would do?"""

    case = 19
    grade = "unclear"
    says = "does not name the version it met .0., nor the version it reads .1."

    def check_version(self, version, checkpoint):
        if version != 1:
            raise Reject(f"{checkpoint}: unsupported version")


class TakesOldForDamaged(Sound):
    """Passes over what it cannot read, until nothing is left, and begins again."""

    case = 19
    grade = "loses"
    says = "began again at step 0"

    def load(self, resume_from):
        try:
            return super().load(resume_from)
        except Reject:
            return None


class TrustsTheNewest(Sound):
    """Loads the newest checkpoint as it is."""

    case = 20
    grade = "loses"
    says = "did not carry on: exit 1"

    def whole(self, checkpoint):
        return torch.load(checkpoint / "state.pt", weights_only=True)


class BeginsAgain(Sound):
    """`except Exception: state = None`: what cannot be loaded was never there."""

    case = 20
    grade = "loses"
    says = "began again at step 0"

    def load(self, resume_from):
        found = self.saved(resume_from)
        return self.whole(found[0]) if found else None


class LooksForFiles(Sound):
    """Takes a checkpoint for whole when its files are there and not empty."""

    case = 20
    grade = "loses"
    says = "did not carry on"

    def whole(self, checkpoint):
        files = [checkpoint / "state.pt", checkpoint / "manifest.json"]
        if all(file.exists() and file.stat().st_size for file in files):
            return torch.load(files[0], weights_only=True)
        return None


class GivesUp(Sound):
    """Names the damaged checkpoint and stops, with three whole ones beside it."""

    case = 20
    grade = "loses"
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
    grade = "unclear"
    says = "does not name 'state.pt' or 'checkpoint-6'"

    def resume_from(self, output_dir):
        return super(Sound, self).resume_from(output_dir)

    def load(self, resume_from):
        print(f"resuming from {resume_from}")
        return torch.load(resume_from / "state.pt", weights_only=True)


class LaunchesWithoutItsBase(Sound):
    """The base model was moved; the tiny settings do without one, the launch does not."""

    case = 11
    grade = "wastes"
    says = "base_model = /models/that/moved.pt: there is no such path"
    production = {"base_model": "/models/that/moved.pt"}
    tiny = {"base_model": None}
