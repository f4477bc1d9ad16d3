"""Programs that save in a thread while the next steps are taken, as asynchronous checkpointing does."""

import shutil
import threading
import time
from copy import deepcopy

import torch

from tests.saboteurs.sound import Sound

WRITING = 0.05  # seconds: a save takes long beside a step


class SavesInBackground(Sound):
    """One save at a time; the one before is waited for, and the last one at the end and on SIGTERM."""

    only = (25, 41, 42, 43, "eleven-saves")
    saving = None

    def save(self, output_dir, state):
        self.wait()
        # Not to be joined: a join that a signal handler's exception ends takes the thread for one that has ended.
        self.saving = threading.Event()
        threading.Thread(target=self.save_later, args=[output_dir, deepcopy(state), self.saving], daemon=True).start()

    def save_later(self, output_dir, state, saved):
        self.failed = None
        time.sleep(WRITING)
        try:
            super().save(output_dir, state)
        except Exception as error:
            self.failed = error
        finally:
            saved.set()

    def wait(self):
        if self.saving is not None:
            self.saving.wait()
            self.saving = None
            if self.failed is not None:
                raise self.failed

    def fit(self, *args):
        try:
            super().fit(*args)
        finally:
            self.wait()


class PrunesBeforeItsSaveIsDurable(SavesInBackground):
    """The checkpoint before goes when the new one is begun: killed in between there is none (KempnerForge#102)."""

    only = ()
    case = 42
    grade = "loses"
    says = "began again at step 0"

    def save(self, output_dir, state):
        self.wait()
        for checkpoint in self.saved(output_dir):
            shutil.rmtree(checkpoint)
        super().save(output_dir, state)


class LatestMovesFirst(SavesInBackground):
    """`latest` names the new checkpoint as soon as its save is begun (KempnerForge#102)."""

    only = ()
    case = 42
    grade = "loses"
    says = "did not carry on"

    def save(self, output_dir, state):
        self.wait()
        (output_dir / "latest").write_text(f"checkpoint-{state['step']}")
        self.sync(output_dir / "latest")
        self.sync(output_dir)
        super().save(output_dir, state)

    def load(self, resume_from):
        if not (resume_from / "latest").exists():
            return super().load(resume_from)
        named = resume_from / (resume_from / "latest").read_text()
        return torch.load(named / "state.pt", weights_only=True)


class LatestMovesFirstOnSigterm(LatestMovesFirst):
    """Ordinary saves are waited for; the one on SIGTERM is left to a thread that ends with the program."""

    case = 43

    def save(self, output_dir, state):
        super().save(output_dir, state)
        if not self.asked:
            self.wait()

    def fit(self, settings, rows, output_dir, *rest):
        import signal

        self.output_dir, self.asked = output_dir, False

        def note(*_):
            self.asked = True

        signal.signal(signal.SIGTERM, note)
        Sound.fit(self, settings, rows, output_dir, *rest)
        self.wait()

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        super().step(model, optimizer, scaler, batch, settings, number, device)
        if self.asked:
            self.save(self.output_dir, self.state(model, optimizer, scaler, number))
            raise SystemExit(143)
