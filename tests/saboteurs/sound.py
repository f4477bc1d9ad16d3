"""A small, sound training program: one class, one method for each thing that can be done wrong.

It classifies rows `{"x": [4 numbers], "text": "...", "y": 0 or 1}`. Nothing in it is clever; everything in it is
there because some case of the catalogue asks for it.
"""

import codecs
import contextlib
import errno
import faulthandler
import hashlib
import json
import math
import os
import pickle
import random
import shutil
import signal
import sys
import time
import traceback
from array import array
from pathlib import Path
from statistics import fmean
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pytest_trainguard import Trainer


class Settings(BaseModel):
    """What can be set."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    batch_size: Annotated[int, Field(ge=1, le=128, strict=True)] = 8
    learning_rate: Annotated[float, Field(gt=0, le=0.1, strict=True)] = 0.01
    hidden: Annotated[int, Field(ge=4, le=256)] = 16
    max_length: Annotated[int, Field(ge=4, le=2**22)] = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    save_every: Annotated[int, Field(ge=1)] = 100
    num_workers: Annotated[int, Field(ge=0, le=8)] = 0
    hang_timeout: Annotated[float, Field(gt=0)] = 600.0
    gradient_accumulation: Annotated[int, Field(ge=1, le=64, strict=True)] = 1
    validation_data: str | None = None
    eval_every: Annotated[int, Field(ge=1)] = 100
    max_epochs: Annotated[int, Field(ge=1)] = 10_000
    precision: Literal["fp32", "fp16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    base_model: str | None = None
    adapter: str | None = None

    @field_validator("batch_size", "gradient_accumulation", mode="before")
    @classmethod
    def _no_bool(cls, value):
        if isinstance(value, bool):
            raise ValueError("true and false are no numbers")
        return value


FORMAT = 1  # of a checkpoint
LARGEST_WEIGHT = 1e4
WORDS = ("amber", "brook", "cedar", "dune", "ember", "fern", "glade", "heath")


class Reject(Exception):
    """Bad settings or data: exit code 2."""


class Failure(Exception):
    """Training went wrong: exit code 1."""


class Rows(torch.utils.data.Dataset):
    """Rows as tensors: x [length], zeros after its four numbers, y []."""

    def __init__(self, rows, length=4):
        self.rows, self.length = rows, length

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        x = torch.tensor(row["x"])
        return torch.nn.functional.pad(x, (0, self.length - len(x))), torch.tensor(row["y"])


class RowFile:
    """Checked rows that stay in their file: in memory is only where each begins, and its line."""

    def __init__(self, program, path):
        self.program, self.path = program, path
        self.starts, self.numbers = array("Q"), array("Q")

    def add(self, start, number):
        self.starts.append(start)
        self.numbers.append(number)

    def __len__(self):
        return len(self.starts)

    def __getitem__(self, index):
        number = self.numbers[index]
        try:
            with self.path.open("rb") as file:
                file.seek(self.starts[index])
                line = file.readline()
        except OSError as error:
            raise Failure(f"{self.path}: cannot be read: {error.strerror}") from error
        return self.program.check_row(self.program.parse(line, self.path, number), self.path, number)


class Program:
    """The program; `Sound` is what the harness is told of it."""

    stage = "the start"  # for messages
    EVALUATED = 64  # rows in a forward pass of an evaluation

    # --- data

    def open_data(self, path):
        """Raises Reject for what is no file of rows."""
        try:
            path = path.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise Reject(f"{path}: {getattr(error, 'strerror', None) or error}") from error
        if path.suffix != ".jsonl":
            raise Reject(f"{path}: not a .jsonl file")
        return self.shared(path.open("rb"), path)

    def shared(self, file, path):
        """Hold the file, so that nobody writes to it meanwhile; for one who does now, wait a moment."""
        import fcntl

        for _ in range(3):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return file
            time.sleep(0.1)
        file.close()
        raise Reject(f"{path}: locked by another process")

    max_length = 64  # main puts the setting here
    truncated = 0

    def read_rows(self, path):
        rows, start, self.truncated = RowFile(self, path), 0, 0
        with self.open_data(path) as lines:
            for number, line in enumerate(lines, 1):
                skip = len(codecs.BOM_UTF8) if number == 1 and line.startswith(codecs.BOM_UTF8) else 0
                if line.strip():
                    row = self.check_row(self.parse(line[skip:], path, number), path, number)
                    if row is not None:
                        rows.add(start + skip, number)
                start += len(line)
        if not rows:
            raise Reject(f"{path}: no rows to train on")
        if self.truncated:
            print(f"{self.truncated} of {len(rows)} texts are longer than max_length = {self.max_length}: truncated")
        return rows

    def parse(self, line, path, number):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("the last line is cut off (no newline)")
            return json.loads(line.decode("utf-8"))
        except ValueError as error:
            raise Reject(f"{path}, line {number}: {error}") from error

    def check_row(self, row, path, number):
        for name in ("x", "y", "text"):
            if not isinstance(row, dict) or name not in row:
                raise Reject(f"{path}, line {number}: field {name!r} is missing")
        x = row["x"]
        if not isinstance(x, list) or len(x) != 4 or not all(type(v) in (int, float) for v in x):
            raise Reject(f"{path}, line {number}: field 'x' is {x!r}, not four numbers")
        if type(row["y"]) is not int or row["y"] not in (0, 1):
            raise Reject(f"{path}, line {number}: field 'y' is {row['y']!r}, not 0 or 1")
        if not isinstance(row["text"], str) or not row["text"].strip():
            raise Reject(f"{path}, line {number}: field 'text' is {row['text']!r}, not text with something in it")
        try:
            return {"x": [*map(float, x[:3]), x[3] + self.read_text(row["text"])], "y": row["y"]}
        except UnicodeEncodeError as error:
            raise Reject(f"{path}, line {number}: field 'text' has a lone surrogate: {error.reason}") from error

    def read_text(self, text):
        """All that the model sees of a text: one number, of as many characters as it reads at most."""
        text.encode()
        self.truncated += len(text) > self.max_length
        if self.tokens is not None:
            return fmean(self.embedding[number] for number in self.numbers(text[: self.max_length])) / 10
        return fmean(text[: self.max_length].encode()) / 255

    def batches(self, rows, settings, start, stop):
        """Every step draws its examples from a generator seeded by the step: nothing to save, nothing to skip."""
        size = min(settings.batch_size, len(rows))
        chosen = [random.Random(step).sample(range(len(rows)), size) for step in range(start, stop)]
        return self.loader(rows, settings, chosen)

    def loader(self, rows, settings, chosen):
        own = torch.Generator()  # the loader draws a seed: not from the generator that dropout uses
        return torch.utils.data.DataLoader(
            Rows(rows, settings.max_length), batch_sampler=chosen, num_workers=settings.num_workers, generator=own
        )

    # --- model

    def build(self, settings):
        model = torch.nn.Sequential(
            torch.nn.Linear(settings.max_length, settings.hidden),
            torch.nn.ReLU(),
            torch.nn.Dropout(settings.dropout),
            torch.nn.Linear(settings.hidden, 2),
        )
        if settings.base_model is not None:
            path = Path(settings.base_model)
            model.load_state_dict(self.load_base(path / "base.pt" if path.is_dir() else path))
        return model

    def load_base(self, path):
        """The weights of a base model. Raises Reject, naming the file, for those that are none."""
        try:
            weights = torch.load(path, weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise Reject(f"base_model: {path} cannot be read: {str(error).splitlines()[0]}") from error
        for name, tensor in weights.items():
            if not (tensor.abs() < LARGEST_WEIGHT).all():  # NaN is not less either
                raise Reject(f"base_model: {path}: {name} holds NaN, or a value over {LARGEST_WEIGHT:g}")
        return weights

    tokens = embedding = None  # of a base model with a tokenizer: the number of each word, and what it is read as

    def load_tokenizer(self, settings):
        """What a base model reads texts with. Raises Reject where its tokenizer and its embedding are no pair."""
        folder = Path(settings.base_model or "")
        if not (folder / "tokenizer.json").is_file():
            return
        told = json.loads((folder / "tokenizer.json").read_text())
        self.tokens = {**told["model"]["vocab"], **{token["content"]: token["id"] for token in told["added_tokens"]}}
        self.embedding = self.load_base(folder / "embedding.pt")["words"].tolist()
        self.check_pair(folder)

    def check_pair(self, folder):
        if len(self.tokens) > len(self.embedding):
            told = f"the tokenizer has {len(self.tokens)} tokens, the embedding {len(self.embedding)} rows"
            raise Reject(f"base_model: {folder}: {told}")

    def numbers(self, text):
        return [self.tokens.get(word, 0) for word in text.split() or [""]]

    def check_base_model(self, settings):
        if settings.base_model is not None and not Path(settings.base_model).exists():
            raise Reject(f"base_model: {settings.base_model}: no such file")

    def device(self, settings):
        if settings.device == "cuda" and not torch.cuda.is_available():
            raise Reject("device: cuda was asked for, and there is none")
        device = "cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"
        which = f":{torch.cuda.current_device()}, 1 of {torch.cuda.device_count()} GPUs" if device == "cuda" else ""
        print(f"training on {device}{which}")
        return device

    # --- checkpoints

    def state(self, model, optimizer, scaler, step):
        return {
            "step": step,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scaler": scaler.state_dict(),
            "rng": torch.get_rng_state(),
        }

    def save(self, output_dir, state):
        """Write beside, fsync, rename, fsync the folder; on failure leave nothing."""
        final = output_dir / f"checkpoint-{state['step']}"
        beside = output_dir / f".tmp-checkpoint-{state['step']}"
        try:
            beside.mkdir()
            self.write_state(beside, state)
            self.sync(beside)
            shutil.rmtree(final, ignore_errors=True)  # a damaged one, or one of a run that went another way
            os.rename(beside, final)
            self.sync(output_dir)
        except (OSError, RuntimeError) as error:
            with contextlib.suppress(OSError):
                shutil.rmtree(beside)
            if isinstance(error, OSError) or "iostream" in str(error) or "unexpected pos" in str(error):
                reason = getattr(error, "strerror", None) or os.strerror(errno.ENOSPC)
                raise Failure(f"cannot save {final}: {reason}") from error
            raise
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise

    def write_state(self, folder, state):
        """The files of a checkpoint, each fsynced; the manifest last."""
        torch.save(state, folder / "state.pt")
        self.sync(folder / "state.pt")
        digest = hashlib.sha256((folder / "state.pt").read_bytes()).hexdigest()
        (folder / "manifest.json").write_text(json.dumps({"format": FORMAT, "state.pt": digest}))
        self.sync(folder / "manifest.json")

    def sync(self, path):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    def whole(self, checkpoint):
        """The state, or None where the checkpoint is not what was written."""
        try:
            manifest = json.loads((checkpoint / "manifest.json").read_text())
            digest, version = manifest["state.pt"], manifest["format"]
            content = (checkpoint / "state.pt").read_bytes()
        except (OSError, ValueError, KeyError, TypeError):
            return None
        self.check_version(version, checkpoint)
        if hashlib.sha256(content).hexdigest() != digest:
            return None
        return torch.load(checkpoint / "state.pt", weights_only=True)

    def check_version(self, version, checkpoint):
        if version != FORMAT:
            raise Reject(f"{checkpoint} is of format {version!r}, this program reads format {FORMAT}")

    def saved(self, output_dir):
        found = [p for p in output_dir.glob("checkpoint-*") if p.name.rpartition("-")[2].isdigit()]
        return sorted(found, key=lambda p: int(p.name.rpartition("-")[2]), reverse=True)

    def load(self, resume_from):
        """The newest whole state in an output folder; None where there is none yet."""
        if not resume_from.exists():
            raise Reject(f"resume_from: {resume_from}: no such folder")
        is_one = resume_from.name.startswith("checkpoint-")
        found = [resume_from] if is_one else self.saved(resume_from)
        for checkpoint in found:
            state = self.whole(checkpoint)
            if state is not None:
                self.check_state(state, checkpoint)
                return state
            print(f"{checkpoint} is damaged: trying the one before", file=sys.stderr)
        if found:
            raise Reject(f"{resume_from}: no whole checkpoint among {len(found)}")
        print(f"no checkpoint in {resume_from}: starting at step 0")
        return None

    def check_state(self, state, checkpoint):
        step = state.get("step")
        if type(step) is not int:
            raise Reject(f"{checkpoint}: its step is {step!r}, not a whole number")
        if step < 0:
            raise Reject(f"{checkpoint}: step {step} is negative")

    def restore(self, state, model, optimizer, scaler):
        try:
            model.load_state_dict(state["model"])
        except RuntimeError as error:
            mismatch = str(error).splitlines()[1].strip()
            raise Reject(f"the checkpoint of step {state['step']} is of another model: {mismatch}") from error
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])

    # --- adapter: what training changed of the last layer, with the name of the base that it belongs to

    def save_adapter(self, output_dir, model, first, settings):
        """Write beside, fsync, rename; at the end of a run."""
        beside, final = output_dir / ".tmp-adapter", output_dir / "adapter"
        try:
            beside.mkdir()
            torch.save({"last.weight": self.last(model).detach().cpu() - first}, beside / "adapter_model.pt")
            (beside / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": self.base(settings)}))
            for file in beside.iterdir():
                self.sync(file)
            shutil.rmtree(final, ignore_errors=True)
            os.rename(beside, final)
        except (OSError, RuntimeError) as error:
            shutil.rmtree(beside, ignore_errors=True)
            raise Failure(f"cannot save {final}: {error}") from error

    def last(self, model):
        return list(model.parameters())[-2:][0]  # the last layer's weight: its bias comes after it

    def base(self, settings):
        return f"sound-{settings.hidden}"

    def load_adapter(self, settings, model):
        folder = Path(settings.adapter)
        theirs = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
        if theirs != self.base(settings):
            raise Reject(f"adapter: {folder} is one of {theirs}, and the base is {self.base(settings)}")
        with torch.no_grad():
            self.last(model).add_(torch.load(folder / "adapter_model.pt", weights_only=True)["last.weight"])

    # --- process

    def lock(self, output_dir):
        """An OS lock, gone with its process; the file tells who holds it."""
        import fcntl

        path = output_dir / ".lock"
        try:
            file = open(path, "a+")  # noqa: SIM115 (held for the life of the run)
        except OSError as error:
            raise Reject(f"{output_dir} cannot be written to: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise Reject(f"{output_dir} is in use by process {file.read().strip()}") from error
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        return file

    def unlock(self, output_dir, file):
        (output_dir / ".lock").unlink(missing_ok=True)
        file.close()

    def watch(self, seconds):
        """End the process, with its stacks, when a step takes longer than that."""
        faulthandler.dump_traceback_later(seconds, exit=True)

    # --- training

    def check_loss(self, loss, step):
        if not torch.isfinite(loss):
            raise Failure(f"step {step}: the loss is not finite ({float(loss)})")

    def check_gradient(self, model, step):
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if not torch.isfinite(norm):
            raise Failure(f"step {step}: the gradient norm is not finite ({float(norm)})")

    def steps(self, settings, rows, max_steps):
        """The optimizer steps of the whole run: `max_steps`, unless `max_epochs` are over before."""
        if max_steps < 1:
            raise Reject(f"max_steps: {max_steps} optimizer steps are nothing to train for")
        return min(max_steps, settings.max_epochs * -(-len(rows) // settings.batch_size))

    def fit(self, settings, rows, output_dir, max_steps, resume_from, seed):
        torch.manual_seed(seed)
        np.random.seed(seed)
        device = self.device(settings)
        self.stage = "loading the model"
        model = self.build(settings).to(device)
        first = self.last(model).detach().cpu().clone()
        if settings.adapter is not None:
            self.load_adapter(settings, model)
        optimizer = self.optimizer(model, settings)
        scaler = torch.amp.GradScaler(device, enabled=settings.precision == "fp16", init_scale=1024.0)
        state = self.load(resume_from) if resume_from else None
        step = 0
        if state is not None:
            self.restore(state, model, optimizer, scaler)
            step = state["step"]
        model.train()
        self.watch(settings.hang_timeout)
        self.stage = f"making the batch of step {step + 1}"
        for batch in self.batches(rows, settings, step, max_steps):
            self.stage = f"step {step + 1}"
            self.step(model, optimizer, scaler, batch, settings, step + 1, device)
            step += 1
            self.watch(settings.hang_timeout)
            best = bool(self.validation) and step % settings.eval_every == 0 and self.validate(model, step, output_dir)
            if best or step % settings.save_every == 0 or step == max_steps:
                self.stage = f"the save of step {step}"
                self.save(output_dir, self.state(model, optimizer, scaler, step))
            self.stage = f"making the batch of step {step + 1}"
        faulthandler.cancel_dump_traceback_later()
        self.save_adapter(output_dir, model, first, settings)

    def validate(self, model, step, output_dir):
        """Whether this validation is the best so far. Warns by name of what no model should do."""
        x, y = (torch.stack(part) for part in zip(*Rows(self.validation, self.max_length), strict=True))
        model.eval()
        with torch.no_grad():
            scores = self.evaluate(model, x.to(next(model.parameters()).device)).float().cpu()
        model.train()
        right = float((scores.argmax(1) == y).float().mean())
        self.flag(step, scores.argmax(1).tolist(), right)
        told = self.told(output_dir)
        told["losses"] = {s: loss for s, loss in told["losses"].items() if int(s) < step}
        told["losses"][str(step)] = float(torch.nn.functional.cross_entropy(scores, y))
        print(f"step {step}: validation loss {told['losses'][str(step)]:.4f}, accuracy {right:.3f}")
        best = self.is_best(told["losses"])
        told["best"] = f"checkpoint-{step}" if best else told["best"]
        (output_dir / "validation.json").write_text(json.dumps(told))
        return best

    def evaluate(self, model, x):
        """The scores of all rows, shape [rows, classes]: so few numbers of a row may be kept."""
        return torch.cat([model(part) for part in x.split(self.EVALUATED)])

    def flag(self, step, predictions, right):
        if len(set(predictions)) == 1 and len(predictions) > 1:
            print(f"warning: step {step}: degenerate output: every prediction is class {predictions[0]}")
        if right == 0:
            print(f"warning: step {step}: zero accuracy: every prediction is wrong")

    def is_best(self, losses):
        """Whether the last of the losses is the lowest."""
        *before, last = losses.values()
        return last < min(before, default=math.inf)

    def told(self, output_dir):
        """What earlier validations of this run came to."""
        path = output_dir / "validation.json"
        return json.loads(path.read_text()) if path.exists() else {"losses": {}, "best": None}

    def optimizer(self, model, settings):
        return torch.optim.AdamW(model.parameters(), lr=settings.learning_rate)

    def loss(self, output, y):
        return torch.nn.functional.cross_entropy(output.float(), y)

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        """One optimizer step over `gradient_accumulation` micro-batches, weighted by their sizes."""
        optimizer.zero_grad()
        x, y = (part.to(device) for part in batch)
        parts = min(settings.gradient_accumulation, len(y))
        for mx, my in zip(x.chunk(parts), y.chunk(parts), strict=True):
            with torch.autocast(device, torch.float16, enabled=settings.precision == "fp16"):
                output = model(mx)
            loss = self.loss(output, my) * (len(my) / len(y))
            if not scaler.is_enabled():
                self.check_loss(loss, number)
            scaler.scale(loss).backward()
        if scaler.is_enabled():
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        else:
            self.check_gradient(model, number)
        scaler.step(optimizer)
        scaler.update()

    # --- the whole

    def read_settings(self, path):
        """The values in a settings file. Raises Reject, naming the file, and of bad syntax line and column."""
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise Reject(f"settings {path}: {error.strerror}") from error
        except json.JSONDecodeError as error:
            raise Reject(f"settings {path}, line {error.lineno}, column {error.colno}: {error.msg}") from error

    def settings(self, values):
        try:
            return Settings(**values)
        except ValidationError as error:
            told = [f"{'.'.join(map(str, e['loc']))}: {e['input']!r}: {e['msg']}" for e in error.errors()]
            raise Reject("; ".join(told)) from error

    def main(self, values, data, output_dir, max_steps, resume_from, seed):
        """Returns the exit code."""
        try:
            settings = self.settings(self.read_settings(values) if isinstance(values, Path) else values)
            self.check_base_model(settings)
            self.load_tokenizer(settings)
            self.stage = f"reading {data}"
            self.max_length = settings.max_length
            rows = self.read_rows(data)
            self.validation = self.read_rows(Path(settings.validation_data)) if settings.validation_data else []
            max_steps = self.steps(settings, rows, max_steps)
            lock = self.lock(output_dir)
        except Reject as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except OSError as error:
            print(f"error: {data}: {error.strerror or error}", file=sys.stderr)
            return 2
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        for left in output_dir.glob(".tmp-*"):
            shutil.rmtree(left)
        try:
            self.fit(settings, rows, output_dir, max_steps, resume_from, seed)
        except Reject as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except Failure as error:
            print(f"failed: {error}", file=sys.stderr)
            return 1
        finally:
            self.unlock(output_dir, lock)
        return 0


def command_of(program):
    """The command line that starts a program with its settings in a file; see `__main__`."""
    return (
        f"python -m tests.saboteurs {program.__module__}:{program.__qualname__} --settings {{config}} --data {{data}} "
        "--output-dir {output_dir} --max-steps {max_steps} --resume-from {resume_from} --seed {seed}"
    )


class Sound(Program, Trainer):
    """The sound program, as the harness knows it. A saboteur overrides one method, and says what it is."""

    config = Settings
    labels = "y"
    overfit = {"learning_rate": 0.05, "dropout": 0.0, "hidden": 64}
    case: str | int = ""  # slug or number of the case that must fail this saboteur
    says = ""  # a pattern that the finding must match
    grade = ""  # of the harm that the case must see
    only = ()  # of a sound program: the cases that it is a twin for, by slug or number; every case where none is named
    exempt = ()  # of those, the cases that must see by themselves that they cannot judge it

    def __init_subclass__(cls):
        cls.command = command_of(cls)

    def make_data(self, folder, rows, seed):
        path = folder / "rows.jsonl"
        numbers, words = random.Random(seed), random.Random(seed)
        with path.open("w") as out:
            for _ in range(rows):
                x = [round(numbers.uniform(-1, 1), 3) for _ in range(4)]
                text = " ".join(words.choices(WORDS, k=4))
                out.write(json.dumps({"x": x, "text": text, "y": int(x[0] + x[1] > 0)}) + "\n")
        return path

    def make_model(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(1)
        torch.save(Program.build(self, Settings()).state_dict(), folder / "base.pt")
        known = {"<unk>": 0, **{word: number for number, word in enumerate(WORDS[:4], 1)}}
        torch.save({"words": torch.linspace(0, 1, len(known))}, folder / "embedding.pt")
        (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": [], "model": {"vocab": known}}))
        return folder

    def resume_from(self, output_dir):
        return output_dir

    def validation_losses(self, output_dir):
        return {int(step): loss for step, loss in self.told(output_dir)["losses"].items()}

    def best_checkpoint(self, output_dir):
        best = self.told(output_dir)["best"]
        return output_dir / best if best else None

    def train(self, run):
        try:
            return self.main(run.settings, run.data, run.output_dir, run.max_steps, run.resume_from, run.seed)
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "memory: you tried" not in str(error):
                raise  # torch's own error of a GPU says all that there is to say
            traceback.print_exc()
            print(f"failed: out of memory in {self.stage}: {type(error).__name__}: {error}", file=sys.stderr)
            return 1


Sound.command = command_of(Sound)
