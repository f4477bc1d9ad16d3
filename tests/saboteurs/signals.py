"""SIGTERM in every phase of a run (case 43), and sound programs that do something about it in their own way."""

import signal
import sys

import torch

from tests.saboteurs.sound import Sound


class IgnoresSigterm(Sound):
    """Somebody's Ctrl-C in another window ended the run once: signals are ignored since then."""

    case = 43
    grade = "loses"
    says = "in step 1: the signal is ignored: it took 8 more steps"

    def fit(self, *rest):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        super().fit(*rest)


class NotesSigterm(Sound):
    """The handler notes the signal; whoever asked for the note was taken out with the old loop."""

    case = 43
    grade = "loses"
    says = "as it saved after step 2: the signal is ignored"

    def fit(self, *rest):
        self.asked = False
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "asked", True))
        super().fit(*rest)


class Asks(Sound):
    """Notes the signal and, after the step, saves and ends: what the sound ones and the others here are made from."""

    only = ("none",)
    asked = False

    def fit(self, settings, rows, output_dir, *rest):
        self.output_dir = output_dir
        signal.signal(signal.SIGTERM, self.note)
        super().fit(settings, rows, output_dir, *rest)

    def note(self, *_):
        self.asked = True

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        super().step(model, optimizer, scaler, batch, settings, number, device)
        if self.asked:
            self.save(self.output_dir, self.state(model, optimizer, scaler, number))
            self.saved_on_request()

    def saved_on_request(self):
        sys.exit(143)


class ForgetsWhatCameEarly(Asks):
    """The flag is cleared once the model is there: a signal while that was loading is gone."""

    case = 43
    grade = "loses"
    says = "while its model was built: the signal is ignored"

    def optimizer(self, model, settings):
        self.asked = False
        return super().optimizer(model, settings)


class EvaluationGoesOn(Sound):
    """An evaluation that fails must not end the training: and so nothing that comes in it does."""

    case = 43
    grade = "loses"
    says = "as it evaluated before step 3: the signal is ignored"
    tiny = {"eval_every": 2}

    def fit(self, settings, rows, *rest):
        self.validation = rows
        super().fit(settings, rows, *rest)

    def validate(self, model, step, output_dir):
        try:
            super().validate(model, step, output_dir)
        except BaseException as error:
            print(f"evaluation failed: {error!r}")
            model.train()
        return False


class WorkersTakeItAlong(Asks):
    """Saves at the signal where it is alone; a worker that dies of the signal is an error of its loader's."""

    case = 43
    grade = "loses"
    says = "with 2 workers of its loader, which got it too: it did not save"


class WorkersIgnoreIt(Asks):
    """The signal is the training process's affair."""

    only = (43,)

    def loader(self, rows, settings, chosen):
        loader = super().loader(rows, settings, chosen)
        return torch.utils.data.DataLoader(
            loader.dataset, batch_sampler=chosen, num_workers=settings.num_workers, generator=loader.generator,
            worker_init_fn=ignore_sigterm,
        )  # fmt: skip


class EndsWithoutAStep(WorkersIgnoreIt):
    """Asks before each step as well, when nothing is saved yet; what it wrote of itself stays there. Sound."""

    only = (43,)

    def fit(self, settings, rows, output_dir, *rest):
        (output_dir / "run.json").write_text('{"rows": 64}')
        super().fit(settings, rows, output_dir, *rest)

    def step(self, *rest):
        if self.asked:
            sys.exit(143)
        super().step(*rest)


class SavesAndGoesOn(WorkersIgnoreIt):
    """Two minutes are left once a spot instance is told: it saves, and makes use of them."""

    only = (43,)

    def saved_on_request(self):
        self.asked = False


class EndsAtTheNextSave(Sound):
    """Looks at the flag where it saves: that is soon enough here, every second step."""

    only = (43,)

    def fit(self, *rest):
        self.asked = False
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "asked", True))
        super().fit(*rest)

    def save(self, output_dir, state):
        super().save(output_dir, state)
        if self.asked:
            sys.exit(143)


def ignore_sigterm(_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
