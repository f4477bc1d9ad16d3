"""What the harness is told of the two examples: where their settings and data are, and how they are started."""

from pathlib import Path

import tokenizers
import torch
import transformers

from examples import plain_loop, with_transformers
from pytest_trainguard import Run, Trainer


class PlainLoop(Trainer):
    config = plain_loop.Settings
    sample = "examples/reviews.jsonl"
    labels = "label"
    command = (
        "python -m examples.plain_loop --settings {config} --data {data} --output-dir {output_dir} "
        "--max-steps {max_steps} --resume-from {resume_from} --seed {seed}"
    )
    production = {"batch_size": 256, "hidden_size": 1024, "max_length": 1024, "num_workers": 4}
    tiny = {"batch_size": 8, "hidden_size": 8, "max_length": 32, "num_workers": 0}
    overfit = {"learning_rate": 0.03, "batch_size": 32, "hidden_size": 64}

    def make_model(self, folder):
        plain_loop.train(self.tiny, Path(self.sample), folder, max_steps=1)
        return folder / "checkpoint-1"

    def resume_from(self, output_dir):
        return output_dir

    def validation_losses(self, output_dir):
        newest = plain_loop.checkpoints(output_dir)[0]
        return torch.load(newest / "state.pt", weights_only=True)["validation"]

    def best_checkpoint(self, output_dir):
        losses = self.validation_losses(output_dir)
        return output_dir / f"checkpoint-{min(losses, key=losses.get)}"

    def train(self, run: Run):
        plain_loop.train(run.settings, run.data, run.output_dir, run.max_steps, run.resume_from, run.seed)


class WithTransformers(Trainer):
    config = with_transformers.Settings
    sample = PlainLoop.sample
    labels = "label"
    command = PlainLoop.command.replace("plain_loop", "with_transformers")
    production = {"batch_size": 32, "hidden_size": 768, "layers": 12, "max_length": 512, "num_workers": 4}
    tiny = {"batch_size": 8, "hidden_size": 16, "layers": 1, "max_length": 48, "num_workers": 0, "learning_rate": 1e-3}
    overfit = {"learning_rate": 3e-3, "batch_size": 32, "hidden_size": 64}

    def make_model(self, folder):
        """A BERT of the tiny sizes that knows a few words, with its tokenizer, as transformers saves them."""
        words = {"[PAD]": 0, "[UNK]": 1, "the": 2, "and": 3, "kettle": 4, "backpack": 5}
        table = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
        table.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=table, pad_token="[PAD]", unk_token="[UNK]")
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
        sizes = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
        config = transformers.BertConfig(vocab_size=len(words), max_position_embeddings=48, **sizes)
        for part in (tokenizer, transformers.BertForSequenceClassification(config)):
            part.save_pretrained(folder)
        return folder

    def resume_from(self, output_dir):
        return output_dir

    def train(self, run: Run):
        with_transformers.train(run.settings, run.data, run.output_dir, run.max_steps, run.resume_from, run.seed)
