"""Train a classifier to tell good reviews from bad ones with `transformers.Trainer`, to be read from top to bottom.

    python examples/with_transformers.py --data examples/reviews.jsonl --output-dir runs/bert --max-steps 300
    python examples/with_transformers.py ... --resume-from runs/bert    # goes on where that stood

`Trainer` brings the loop. What it leaves to its user stands around it; the comments say what was lost without that.
"""

import argparse
import faulthandler
import fcntl
import hashlib
import json
import os
import shutil
import signal
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
import transformers
from huggingface_hub import snapshot_download
from safetensors.torch import load_file

LABELS = ("negative", "positive")
FORMAT = 1  # of checkpoints: raised when something else is saved, so that no old one is taken for a new one
NEEDED = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")  # to go on alike


@dataclass
class Settings:
    batch_size: int = field(default=16, metadata={"ge": 1, "le": 1024})
    learning_rate: float = field(default=3e-4, metadata={"ge": 1e-6, "le": 0.01})
    max_length: int = field(default=256, metadata={"ge": 8, "le": 8192})  # tokens of a text
    hidden_size: int = field(default=64, metadata={"ge": 8, "le": 8192})  # of a new model, as are its layers
    layers: int = field(default=2, metadata={"ge": 1, "le": 96})
    save_every: int = field(default=50, metadata={"ge": 1, "le": 1_000_000})  # steps; it validates as often
    num_workers: int = field(default=0, metadata={"ge": 0, "le": 64})
    hang_timeout: int = field(default=600, metadata={"ge": 10, "le": 86_400})  # seconds for a step, its save included
    validation_data: str = ""  # other rows: without them nobody sees that the data are only learnt by heart
    model: str = ""  # a folder, or a name on the hub; with none, a small BERT that reads bytes is made here

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


def read_rows(path, tokenizer, max_length):
    """The rows of a JSONL file as `Trainer` takes them, all checked; of a text no more is kept than is trained on."""
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
                text = row["text"][: 32 * max_length]  # of megabytes in one row, millions of tokens would be made
                ids = tokenizer(text, truncation=True, max_length=max_length + 1)["input_ids"]
            except (ValueError, TypeError) as error:
                sys.exit(f"{path}, line {number}: {error}")  # not skipped, not guessed: nobody would know of it
            if len(ids) > max_length:
                truncated, ids = truncated + 1, tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
            rows.append({"input_ids": ids, "labels": LABELS.index(row["label"])})
    if not rows:
        sys.exit(f"{path}: there are no rows in it")
    print(f"{path}: {len(rows)} rows, of which {truncated} are truncated to {max_length} tokens")
    return rows


def checkpoints(output_dir):  # the newest first; by step, since the clock of some machine is always wrong
    return sorted(output_dir.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)


def sync(path):  # what was written is in memory until then: after a power cut the file is there, and empty
    number = os.open(path, os.O_RDONLY)
    os.fsync(number)
    os.close(number)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def newest(path):
    """A checkpoint, or the newest in a folder, whose files are to the bit what was saved, and its step."""
    found = [path] if path.name.startswith("checkpoint-") else checkpoints(path)
    for checkpoint in found:
        try:
            manifest = json.loads((checkpoint / "manifest.json").read_text())
            if manifest["format_version"] != FORMAT:
                sys.exit(f"{checkpoint} is of format version {manifest['format_version']}, this program reads {FORMAT}")
            whole = all(sha256(checkpoint / name) == manifest["files"][name] for name in {*NEEDED, *manifest["files"]})
            step = json.loads((checkpoint / "trainer_state.json").read_text())["global_step"]
        except (OSError, ValueError, KeyError, TypeError):
            whole, step = False, None
        if whole and type(step) is int:
            return (checkpoint, step) if step >= 0 else sys.exit(f"{checkpoint}: its step is negative, {step}")
        print(f"{checkpoint} is damaged: its files are not what was saved", file=sys.stderr)
    if found or not path.is_dir():
        sys.exit(f"{path}: no whole checkpoint is there")
    print(f"no checkpoint in {path} yet: starting at step 0")
    return None, 0


class Careful(transformers.Trainer):
    def training_step(self, *args):
        faulthandler.dump_traceback_later(self.settings.hang_timeout, exit=True)  # a hang ends, and shows where it was
        signal.signal(signal.SIGTERM, lambda number, frame: self.stopped.append(number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # here alone: see below
        loss, step = super().training_step(*args), self.state.global_step + 1
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        if not torch.isfinite(loss + norm):  # before the step, or all weights are NaN, and soon all that are saved
            sys.exit(f"step {step}: loss {loss.item()} or gradient {norm.item()} is not finite")
        print(f"step {step}: loss {loss.item():.4f}")
        due = self.stopped or step % self.settings.save_every == 0 or step == self.args.max_steps
        self.control.should_save, self.control.should_evaluate = bool(due), bool(due and self.eval_dataset)
        return loss

    def evaluate(self, *args, **options):
        """Says by name, since nobody reads numbers among numbers, what no model should do; remembers the best step."""
        metrics, state = super().evaluate(*args, **options), self.state
        print(f"validation: loss {metrics['eval_loss']:.4f}, accuracy {metrics['eval_accuracy']:.3f}")
        if metrics["eval_classes"] == 1:
            print("warning: degenerate: every prediction is the same class")
        if metrics["eval_accuracy"] == 0:
            print("warning: every prediction is wrong: accuracy 0 %")
        if state.best_metric is None or metrics["eval_loss"] < state.best_metric:
            state.best_metric, state.best_global_step = metrics["eval_loss"], state.global_step
            state.best_model_checkpoint = str(Path(self.args.output_dir).with_name(f"checkpoint-{state.global_step}"))
        return metrics

    def _save_checkpoint(self, model, trial):
        """Write beside, make durable, rename: what has a checkpoint's name is whole, whenever the kill comes."""
        beside = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"  # where `Trainer` writes it
        output_dir, final = beside.parent.parent, beside.parent.with_name(beside.name)
        with stage(f"saving {final}"):
            try:
                super()._save_checkpoint(model, trial)
                manifest = {"format_version": FORMAT, "files": {path.name: sha256(path) for path in beside.iterdir()}}
                (beside / "manifest.json").write_text(json.dumps(manifest))
                for path in (*beside.iterdir(), beside):
                    sync(path)
                shutil.rmtree(final, ignore_errors=True)  # a damaged one, which this run passed over as it began
                beside.rename(final)
                sync(output_dir)
            finally:
                shutil.rmtree(beside.parent, ignore_errors=True)  # on a full disk, half a checkpoint only takes room
            for old in checkpoints(output_dir)[4:]:  # only now: the newer ones are durable
                if old.name != f"checkpoint-{self.state.best_global_step}":
                    shutil.rmtree(old)
        if self.stopped:  # by a scheduler that wants the machine: saved, and 143 says that it was not all
            sys.exit(128 + signal.SIGTERM)


def train(values, data, output_dir, max_steps=1000, resume_from=None, seed=0):
    """Train until `max_steps` optimizer steps are done in all. What can be wrong is looked at before the first."""
    settings = Settings(**values)
    if max_steps < 1:
        sys.exit(f"max_steps = {max_steps}: no step to train")
    name = settings.model  # looked for without the network: a GPU may have none, and a slip in it waits for minutes
    with stage(f"looking for the model {name} here, and in the hub's cache, which `hf download {name}` fills"):
        folder = name if not name or Path(name).is_dir() else snapshot_download(name, local_files_only=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder) if folder else transformers.ByT5Tokenizer()
    with stage(f"reading the data {data}"):
        files = (data, settings.validation_data)
        rows, held_out = [read_rows(file, tokenizer, settings.max_length) if file else None for file in files]
    found, step = newest(resume_from) if resume_from else (None, 0)
    if step >= max_steps:
        return print(f"already trained: step {step} of {max_steps}")
    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None  # told: may be gone
    memory = gpu.total_memory if gpu else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    print(f"device: {'cuda:0' if gpu else 'cpu'}, {memory / 2**30:.1f} GiB ({torch.cuda.device_count()} GPUs in sight)")
    transformers.set_seed(seed)
    if folder:
        for file in Path(folder).glob("*.safetensors"):
            with stage(f"reading {file}"):
                if not all((one.abs() < 1e4).all() for one in load_file(file).values()):  # a flipped bit makes 1e36
                    sys.exit(f"{file} is damaged: a weight in it is NaN, or over 10,000")
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(LABELS))
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:  # on a GPU a device-side assert, hours later
            sys.exit(f"model = {folder}: its tokenizer has more tokens than its embedding has rows")
    else:
        sizes = {"hidden_size": settings.hidden_size, "intermediate_size": 4 * settings.hidden_size}
        sizes |= {"num_hidden_layers": settings.layers, "max_position_embeddings": settings.max_length}
        config = transformers.BertConfig(vocab_size=len(tokenizer), num_attention_heads=4, **sizes)
        model = transformers.BertForSequenceClassification(config)
    if found:  # strictly, which `Trainer` is not: what does not fit is told, and not left as it was made just now
        model.load_state_dict(load_file(found / "model.safetensors"))
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
    arguments = transformers.TrainingArguments(
        str(output_dir / ".unfinished"), max_steps=max_steps, learning_rate=settings.learning_rate, seed=seed,
        per_device_train_batch_size=settings.batch_size, dataloader_num_workers=settings.num_workers,
        use_cpu=not gpu, bf16=bool(gpu), logging_strategy="no", save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    arguments._n_gpu = 1 if gpu else 0  # else it takes every GPU that it sees, the colleague's too
    trainer = Careful(
        model, arguments, train_dataset=rows, eval_dataset=held_out, processing_class=tokenizer,
        compute_metrics=lambda result: {"accuracy": (result.predictions.argmax(1) == result.label_ids).mean().item(),
                                        "classes": len(set(result.predictions.argmax(1)))},
    )  # fmt: skip
    trainer.settings, trainer.stopped = settings, []
    trainer.remove_callback(transformers.PrinterCallback)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # schedulers send it to workers too: they keep it so
    with stage(f"training on the data {data}"):
        trainer.train(resume_from_checkpoint=str(found) if found else None)
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
