"""Train a small classifier to tell good reviews from bad ones: a plain PyTorch loop, to be read from top to bottom.

    python examples/plain_loop.py --data examples/reviews.jsonl --output-dir runs/plain --max-steps 300
    python examples/plain_loop.py ... --resume-from runs/plain    # goes on where that stood

The model is nothing special. What stands around it is there because runs were lost without it; the comments say how.
"""

import argparse
import faulthandler
import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from torch.utils.data import DataLoader

LABELS = ("negative", "positive")
BUCKETS = 10_000  # a word's row in the embedding is its hash: there is no vocabulary that could be the wrong one
FORMAT = 1  # of checkpoints: raised when something else is saved, so that no old one is taken for a new one


@dataclass
class Settings:
    batch_size: int = field(default=16, metadata={"ge": 1, "le": 1024})
    learning_rate: float = field(default=3e-3, metadata={"ge": 1e-6, "le": 0.1})
    max_length: int = field(default=256, metadata={"ge": 4, "le": 100_000})  # words of a text
    hidden_size: int = field(default=64, metadata={"ge": 4, "le": 65_536})
    save_every: int = field(default=50, metadata={"ge": 1, "le": 1_000_000})  # steps; it validates as often
    num_workers: int = field(default=0, metadata={"ge": 0, "le": 64})
    hang_timeout: int = field(default=600, metadata={"ge": 10, "le": 86_400})  # seconds for a step, its save included
    validation_data: str = ""  # other rows: without them nobody sees that the data are only learnt by heart
    base_model: str = ""  # a checkpoint of another run, to begin with its weights

    def __post_init__(self):
        """Name what is wrong before all else: at a learning rate of 0 a run looks well for days, and learns nothing."""
        for one in fields(self):
            value, low, high = getattr(self, one.name), one.metadata.get("ge"), one.metadata.get("le")
            if type(value) not in (one.type, int) or not (low is None or low <= value <= high):  # NaN is in no range
                sys.exit(f"{one.name} = {value!r}: must be {one.type.__name__}, from {low} to {high}")


@contextmanager
def stage(doing):
    """Tell what was being done as it went wrong: "Input/output error" or "MemoryError" alone is of no help."""
    try:
        yield
    except OSError as error:
        sys.exit(f"error while {doing}: {error}")
    except Exception:
        print(f"error while {doing}:", file=sys.stderr)  # above the traceback, with which the program ends
        raise


def read_rows(path, max_length):
    """The rows of a JSONL file as (hashed words, label), all checked; of a text no more is kept than is trained on."""
    rows, truncated = [], 0
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = {"text": None, "label": None} | json.loads(line.decode("utf-8-sig"))  # strictly, so unaltered
                if not isinstance(row["text"], str) or not row["text"].strip():
                    raise ValueError(f"field 'text' is missing, empty or no text: {row['text']!r}")
                if row["label"] not in LABELS:
                    raise ValueError(f"field 'label' is missing or not one of {', '.join(LABELS)}: {row['label']!r}")
                words = [zlib.crc32(word.encode()) % BUCKETS + 1 for word in row["text"].split()]  # 0 is for padding
            except (ValueError, TypeError) as error:
                sys.exit(f"{path}, line {number}: {error}")  # not skipped, not guessed: nobody would know of it
            rows.append((torch.tensor(words[:max_length], dtype=torch.int32), LABELS.index(row["label"])))
            truncated += len(words) > max_length
    if not rows:
        sys.exit(f"{path}: there are no rows in it")
    print(f"{path}: {len(rows)} rows, of which {truncated} are truncated to {max_length} words")
    return rows


def collate(rows):  # to words of shape (rows, longest), and labels of shape (rows,)
    words = torch.nn.utils.rnn.pad_sequence([words for words, _ in rows], batch_first=True)
    return words, torch.tensor([label for _, label in rows])


def checkpoints(output_dir):  # the newest first; by step, since the clock of some machine is always wrong
    return sorted(output_dir.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)


def sync(path):  # what was written is in memory until then: after a power cut the file is there, and empty
    number = os.open(path, os.O_RDONLY)
    os.fsync(number)
    os.close(number)


def save(output_dir, state):
    """Write beside, make durable, rename: what has a checkpoint's name is whole, whenever the kill comes."""
    final, beside = output_dir / f"checkpoint-{state['step']}", output_dir / ".unfinished"
    with stage(f"saving {final}"):
        try:
            beside.mkdir(exist_ok=True)  # one is there after a kill in the middle of a save
            torch.save(state, beside / "state.pt")
            digest = hashlib.sha256((beside / "state.pt").read_bytes()).hexdigest()
            (beside / "manifest.json").write_text(json.dumps({"format_version": FORMAT, "sha256": digest}))
            for path in (beside / "state.pt", beside / "manifest.json", beside):
                sync(path)
            shutil.rmtree(final, ignore_errors=True)  # a damaged one, which this run passed over as it began
            beside.rename(final)
            sync(output_dir)
        finally:
            shutil.rmtree(beside, ignore_errors=True)  # on a full disk, half a checkpoint only takes room
        best = min(state["validation"], key=state["validation"].get, default=0)
        for old in checkpoints(output_dir)[4:]:  # only now: the newer ones are durable
            if old.name != f"checkpoint-{best}":
                shutil.rmtree(old)


def load(path):
    """The state in a checkpoint, or the newest in a folder that is to the bit what was saved; None in a new folder."""
    found = [path] if path.name.startswith("checkpoint-") else checkpoints(path)
    for checkpoint in found:
        try:
            manifest = json.loads((checkpoint / "manifest.json").read_text())
            if manifest["format_version"] != FORMAT:
                sys.exit(f"{checkpoint} is of format version {manifest['format_version']}, this program reads {FORMAT}")
            whole = hashlib.sha256((checkpoint / "state.pt").read_bytes()).hexdigest() == manifest["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            whole = False
        if whole:
            state = torch.load(checkpoint / "state.pt", map_location="cpu", weights_only=True)  # a pickle may run code
            step = state.get("step")
            if type(step) is not int or step < 0:  # `state.get("step", 0)` would train whole weights from step 0
                sys.exit(f"{checkpoint}: state.pt has {step!r} for its step, which is no number of steps")
            return state
        print(f"{checkpoint} is damaged: state.pt is not what manifest.json says", file=sys.stderr)
    if found or not path.is_dir():
        sys.exit(f"{path}: no whole checkpoint is there")
    print(f"no checkpoint in {path} yet: starting at step 0")


@torch.no_grad()
def validate(model, rows, size, device):
    """The mean loss; and by name, since nobody reads numbers among numbers, what no model should do."""
    model.eval()
    scores = torch.cat([model(collate(rows[at : at + size])[0].to(device)).cpu() for at in range(0, len(rows), size)])
    model.train()
    labels, given = collate(rows)[1], scores.argmax(1)
    loss, right = torch.nn.functional.cross_entropy(scores, labels).item(), (given == labels).sum().item()
    print(f"validation: loss {loss:.4f}, {right} of {len(rows)} right")
    if len(given.unique()) == 1:
        print("warning: degenerate: every prediction is the same class")
    if right == 0:
        print("warning: every prediction is wrong: accuracy 0 %")
    return loss


def train(values, data, output_dir, max_steps=1000, resume_from=None, seed=0):
    """Train until `max_steps` optimizer steps are done in all. What can be wrong is looked at before the first."""
    settings = Settings(**values)
    if max_steps < 1:
        sys.exit(f"max_steps = {max_steps}: no step to train")
    with stage(f"reading the data {data}"):
        rows = read_rows(data, settings.max_length)
        held_out = read_rows(settings.validation_data, settings.max_length) if settings.validation_data else []
    base = load(Path(settings.base_model)) if settings.base_model else None
    state = load(resume_from) if resume_from else None
    step, validation = (state["step"], state["validation"]) if state else (0, {})
    if step >= max_steps:
        print(f"already trained: step {step} of {max_steps}")

    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")  # told: the GPU may be gone since yesterday
    of_gpu = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
    memory = of_gpu or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    print(f"device: {device}, {memory / 2**30:.1f} GiB ({torch.cuda.device_count()} GPUs are visible)")
    torch.manual_seed(seed)
    embedding = torch.nn.EmbeddingBag(BUCKETS + 1, settings.hidden_size, padding_idx=0)  # the mean of a text's words
    model = torch.nn.Sequential(embedding, torch.nn.Dropout(0.1), torch.nn.Linear(settings.hidden_size, len(LABELS)))
    if state or base:  # strictly: what does not fit is told, and not left as it was made just now
        model.load_state_dict((state or base)["model"])
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate)
    if state:
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])  # dropout goes on as if nothing had been between
        torch.cuda.set_rng_state_all(state["cuda_rng"][: torch.cuda.device_count()])

    with stage(f"preparing {output_dir}"):
        output_dir.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(output_dir).free < 6 * sum(one.nbytes for one in model.parameters()):  # with AdamW's two
            sys.exit(f"{output_dir}: no room on its disk for two checkpoints")
        lock = open(output_dir / "run.lock", "a+")
        try:  # two runs in one folder write over each other; the system's lock ends with its process, come what may
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit(f"{output_dir} is in use by process {(output_dir / 'run.lock').read_text()}")
        lock.truncate(0)
        print(os.getpid(), file=lock, flush=True)  # for people: by itself, it is soon another process's number
        if checkpoints(output_dir) and not resume_from:
            sys.exit(f"{output_dir} has checkpoints: --resume-from {output_dir}, or take another folder")

    size = min(settings.batch_size, len(rows))  # rows are drawn from seed and step: no place in the data to go back to
    drawn = (random.Random(f"{seed} {number}").sample(range(len(rows)), size) for number in range(step, max_steps))
    own = torch.Generator()  # a loader draws a number: not from the generator that dropout uses
    loader = DataLoader(rows, batch_sampler=drawn, collate_fn=collate, num_workers=settings.num_workers, generator=own)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # schedulers send it to workers too: they keep it so
    batches, stopped = iter(loader), []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    while step < max_steps:
        faulthandler.dump_traceback_later(settings.hang_timeout, exit=True)  # a hang ends, and shows where it was
        with stage(f"making a batch from the data {data}"):
            words, labels = next(batches)
        step += 1
        with stage(f"training step {step}"):
            loss = torch.nn.functional.cross_entropy(model(words.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            if not torch.isfinite(loss + norm):  # before the step, or all weights are NaN, and soon all that are saved
                sys.exit(f"step {step}: loss {loss.item()} or gradient {norm.item()} is not finite")
            optimizer.step()
            print(f"step {step}: loss {loss.item():.4f}")
        if stopped or step % settings.save_every == 0 or step == max_steps:
            if held_out:
                validation[step] = validate(model, held_out, size, device)
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "validation": validation}
            rng = {"rng": torch.get_rng_state(), "cuda_rng": torch.cuda.get_rng_state_all()}
            save(output_dir, {"step": step, **state, **rng})
        if stopped:  # by a scheduler that wants the machine: saved, and 143 says that it was not all
            sys.exit(128 + signal.SIGTERM)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], argument_default=argparse.SUPPRESS)
    places = {"data": Path, "output_dir": Path, "max_steps": int, "resume_from": Path, "seed": int, "settings": Path}
    options = {one.name: one.type for one in fields(Settings)}
    for name, kind in {**places, **options}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, required=name in ("data", "output_dir"))
    given = vars(parser.parse_args())
    file = given.pop("settings", None)  # JSON; the options above go over it
    with stage(f"reading the settings {file}"):
        values = json.loads(file.read_text(encoding="utf-8")) if file else {}
    train({**values, **{name: given.pop(name) for name in options if name in given}}, **given)
