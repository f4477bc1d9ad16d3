"""What the harness is told of the repository's own trainers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from pytest_trainguard import Queue, Run, Trainer
from trainers.chat import lora, syllogisms, tiny_llama
from trainers.chat.rows import ChatFile
from trainers.code import fusion, gnn, roberta, samples, transformer
from trainers.code.rows import RowFile
from trainers.code.tokenizer import train_tokenizer
from trainers.common.rows import split_by_content
from trainers.queue.layout import PRIORITIES


class Program(Trainer):
    """What the programs have in common: data, the resume and the entry, which their command lines call too."""

    entry: Callable[..., int]
    row_file: type[RowFile] | type[ChatFile] = RowFile
    labels = "label"
    settings_name = "settings.toml"

    def make_data(self, folder: Path, rows: int, seed: int) -> Path:
        """Functions of the standard library and their wrong-variable twins."""
        path = folder / "functions.jsonl"
        samples.write_jsonl(path, rows, seed, longest=160)  # characters: short functions, short runs
        return path

    def make_longest(self, folder: Path, rows: int, length: int, seed: int) -> Path:
        """Functions that are cut at `max_length` and `max_nodes`, of as many names as the standard library has."""
        path = folder / "functions.jsonl"
        samples.write_longest(path, rows, seed, length)
        return path

    def make_varied(self, folder: Path, rows: int, length: int, seed: int) -> Path:
        """The same of all lengths."""
        path = folder / "functions.jsonl"
        samples.write_varied(path, rows, seed, length)
        return path

    def resume_from(self, output_dir: Path) -> Path:
        """The programs find the newest whole checkpoint of a folder themselves."""
        return output_dir

    def held_out(self, data: Path) -> list[int]:
        """The rows that a hash of their content puts aside, whatever their label."""
        fraction = type(self).config.model_fields["validation_fraction"].default
        return list(split_by_content(type(self).row_file(data), fraction).validation)

    def validation_losses(self, output_dir: Path) -> dict[int, float]:
        """As the programs log them."""
        records = map(json.loads, (output_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        return {record["step"]: record["loss"] for record in records if record["kind"] == "validation"}

    def best_checkpoint(self, output_dir: Path) -> Path | None:
        """As the programs' metadata names it."""
        metadata = json.loads((output_dir / "training_metadata.json").read_text(encoding="utf-8"))
        return output_dir / metadata["best_checkpoint"] if metadata["best_checkpoint"] else None

    def train(self, run: Run) -> int:
        """Launch it."""
        return type(self).entry(
            run.settings,
            data=run.data,
            output_dir=run.output_dir,
            max_steps=run.max_steps,
            resume_from=run.resume_from,
            seed=run.seed,
        )


def _command(program: str) -> str:
    """A program's command line, for the cases about its settings file."""
    where = "--data {data} --output-dir {output_dir} --resume-from {resume_from}"
    return f"python -m {program} --settings {{config}} {where} --max-steps {{max_steps}} --seed {{seed}}"


class ReadsText(Program):
    """Those that can begin with pretrained weights."""

    def make_model(self, folder: Path) -> Path:
        """A RoBERTa of the tiny sizes with its tokenizer, as transformers saves them."""
        small = type(self).tiny
        table = RowFile(self.make_data(folder, rows=16, seed=1))
        tokenizer = train_tokenizer(table, range(16), small["vocab_size"], small["max_length"])
        sizes = {name: small[name] for name in ("hidden_size", "layers", "heads", "max_length")}
        model = roberta.new_model(tokenizer, **sizes, dropout=0.0)
        tokenizer.save_pretrained(folder / "roberta")
        model.save_pretrained(folder / "roberta")
        return folder / "roberta"


def _queue(settings: Mapping[str, object]) -> Queue:
    """The training queue with the chat trainer behind it, its pauses short: nobody drops in half a file here."""
    command = "python -m trainers.queue --root {root}"
    quick = {
        "settle_seconds": 0.0,
        "unfinished_seconds": 0.0,
        "poll_seconds": 0.02,
        "backoff_seconds": 0.0,
        "starvation_bound": 2,
        "max_attempts": 2,
    }
    return Queue(
        once=f"{command} once",
        add=f"{command} add --priority {{priority}} -- {{file}}",
        retry=f"{command} retry",
        status=f"{command} status --json",
        processing="processing",
        priorities=PRIORITIES,
        starvation_bound=2,
        attempts=2,
        metadata="ledger.sqlite*",
        files={"queue.json": json.dumps({**quick, "trainer_settings": dict(settings)})},
    )


class Transformer(ReadsText):
    """The text classifier, `python -m trainers.code.transformer`."""

    entry = staticmethod(transformer.launch)
    preload = transformer.PRELOAD
    command = _command("trainers.code.transformer")
    config = transformer.Settings
    # What is launched on an A100: RoBERTa-base.
    production = {
        "hidden_size": 768,
        "layers": 12,
        "heads": 12,
        "vocab_size": 32_768,
        "max_length": 512,
        "dropout": 0.1,
        "longest_function": 2_000,
        "batch_size": 64,
        "learning_rate": 1e-4,
        "warmup_steps": 2_000,
        "precision": "bf16",
        "num_workers": 4,
    }
    tiny = {
        "hidden_size": 32,
        "layers": 2,
        "heads": 2,
        "vocab_size": 512,
        "max_length": 128,
        "batch_size": 8,
        "precision": "fp32",
        "num_workers": 0,
        "learning_rate": 5e-4,
        "warmup_steps": 2,
        "keep_last": 4,
    }
    overfit = {
        "batch_size": 32,
        "learning_rate": 3e-3,
        "dropout": 0.0,
        "weight_decay": 0.0,
        "warmup_steps": 5,
        "max_epochs": 50,
        "validation_fraction": 0.0,
    }


class Gnn(Program):
    """The graph classifier, `python -m trainers.code.gnn`."""

    entry = staticmethod(gnn.launch)
    preload = gnn.PRELOAD
    command = _command("trainers.code.gnn")
    config = gnn.Settings
    fields = {"max_length": "max_nodes", "hidden_size": "node_size", "layers": "graph_layers"}
    production = {
        "node_size": 256,
        "graph_layers": 8,
        "graph_vocab_size": 16_384,
        "graph_dropout": 0.1,
        "longest_function": 2_000,
        "max_nodes": 4_096,
        "node_budget": 65_536,
        "batch_size": 128,
        "learning_rate": 1e-3,
        "warmup_steps": 2_000,
        "precision": "bf16",
        "num_workers": 4,
    }
    tiny = {
        "node_size": 16,
        "graph_layers": 2,
        "graph_vocab_size": 300,
        "graph_dropout": 0.0,
        "max_nodes": 512,
        "node_budget": 1_024,
        "batch_size": 8,
        "precision": "fp32",
        "num_workers": 0,
        "learning_rate": 2e-3,
        "warmup_steps": 2,
        "keep_last": 4,
    }
    overfit = {
        "node_size": 32,
        "hidden_texts": 0.0,
        "batch_size": 32,
        "learning_rate": 1e-2,
        "weight_decay": 0.0,
        "warmup_steps": 5,
        "max_epochs": 50,
        "validation_fraction": 0.0,
    }


class Fusion(ReadsText):
    """Both together, `python -m trainers.code.fusion`; in small its branches are new ones, of one layer each."""

    entry = staticmethod(fusion.launch)
    preload = fusion.PRELOAD
    command = _command("trainers.code.fusion")
    config = fusion.Settings
    production = {**Gnn.production, **Transformer.production, "head_size": 512}
    tiny = {**Gnn.tiny, **Transformer.tiny, "layers": 1, "graph_layers": 1, "head_size": 16, "head_dropout": 0.0}
    overfit = {**Gnn.overfit, **Transformer.overfit}


class LoraChat(Program):
    """The chat trainer, `python -m trainers.chat.lora`."""

    entry = staticmethod(lora.launch)
    preload = lora.PRELOAD
    command = _command("trainers.chat.lora")
    row_file = ChatFile
    labels = "messages.-1.content"
    config = lora.Settings
    # What is launched on an A100, but for the model: that is a folder which only that machine has.
    production = {
        "max_length": 4096,
        "layout": "packing",
        "gradient_checkpointing": True,
        "precision": "bf16",
        "lora_rank": 64,
        "lora_alpha": 128,
        "lora_dropout": 0.05,
        "batch_size": 4,
        "gradient_accumulation": 16,
        "learning_rate": 1e-4,
        "warmup_steps": 100,
        "num_workers": 2,
        "answer_tokens": 512,
        "merge": True,
    }
    tiny = {
        "hidden_size": 32,
        "layers": 1,
        "heads": 2,
        "max_length": 128,
        "layout": "padding",
        "gradient_checkpointing": False,
        "precision": "fp32",
        "lora_rank": 8,
        "lora_alpha": 16,
        "batch_size": 8,
        "gradient_accumulation": 1,
        "learning_rate": 2e-3,
        "warmup_steps": 2,
        "num_workers": 0,
        "answered_rows": 8,
        "answer_tokens": 4,
        "keep_last": 4,
        "merge": False,
    }
    queue = _queue(tiny)
    overfit = {
        "hidden_size": 64,
        "lora_rank": 32,
        "lora_alpha": 64,
        "batch_size": 32,
        "learning_rate": 1e-2,
        "lora_dropout": 0.0,
        "warmup_steps": 5,
        "max_epochs": 50,
        "validation_fraction": 0.0,
    }

    def make_data(self, folder: Path, rows: int, seed: int) -> Path:
        """Easy syllogisms."""
        path = folder / "syllogisms.jsonl"
        syllogisms.write_jsonl(path, rows, seed=seed)
        return path

    def make_model(self, folder: Path) -> Path:
        """The Llama of the tiny sizes with its tokenizer, as transformers saves them."""
        tokenizer = tiny_llama.tokenizer()
        sizes = {name: self.tiny[name] for name in ("hidden_size", "layers", "heads")}
        tokenizer.save_pretrained(folder / "llama")
        tiny_llama.model(len(tokenizer), **sizes).save_pretrained(folder / "llama")
        return folder / "llama"

    def make_longest(self, folder: Path, rows: int, length: int, seed: int) -> Path:
        """Conversations of at least so many tokens."""
        path = folder / "long.jsonl"
        syllogisms.write_longest(path, rows, length)
        return path

    def make_varied(self, folder: Path, rows: int, length: int, seed: int) -> Path:
        """Conversations of all lengths."""
        path = folder / "varied.jsonl"
        syllogisms.write_varied(path, rows, length, seed)
        return path
