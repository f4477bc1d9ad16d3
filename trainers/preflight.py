"""What the harness is told of the repository's own trainers."""

from __future__ import annotations

from pathlib import Path

from pytest_trainguard import Run, Trainer
from trainers import learner, misuse, numerics, transformer  # noqa: F401 (what a run imports late, the server has)


class Transformer(Trainer):
    """The variable-misuse classifier, `python -m trainers.transformer`."""

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

    def make_data(self, folder: Path, rows: int, seed: int) -> Path:
        """Functions of the standard library and their wrong-variable twins."""
        path = folder / "functions.jsonl"
        misuse.write_jsonl(path, rows, seed, longest=160)  # characters: short functions, short runs
        return path

    def resume_from(self, output_dir: Path) -> Path:
        """The program finds the newest whole checkpoint of a folder itself."""
        return output_dir

    def train(self, run: Run) -> int:
        """The program's own entry, which its command line calls too."""
        return transformer.launch(
            run.settings,
            data=run.data,
            output_dir=run.output_dir,
            max_steps=run.max_steps,
            resume_from=run.resume_from,
            seed=run.seed,
        )
