"""A `Seq2SeqTrainer`, as the examples of `transformers` use it: their arguments on the command line."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers

from pytest_trainguard import tiny_twin


@dataclass
class DataArguments:
    train_file: Path = field(metadata={"help": "rows with the tokens `x` and an answer `y`"})
    resume_from: Path | None = None


class Tokenizer:
    """As much of one as generation in the evaluation needs: digits."""

    pad_token_id = 0

    def batch_decode(self, rows):
        return [" ".join(str(int(token)) for token in row) for row in rows]


def count_exact(prediction):
    tokenizer, labels = Tokenizer(), prediction.label_ids
    labels = labels.copy()
    labels[labels == -100] = tokenizer.pad_token_id
    predictions = prediction.predictions[..., : labels.shape[1]].clip(min=0)
    pairs = zip(tokenizer.batch_decode(predictions), tokenizer.batch_decode(labels), strict=True)
    return {"exact": sum(ours == theirs for ours, theirs in pairs) / len(labels)}


def main():
    parser = transformers.HfArgumentParser((transformers.Seq2SeqTrainingArguments, DataArguments))
    arguments, data = parser.parse_args_into_dataclasses()
    transformers.set_seed(arguments.seed)
    rows = [json.loads(line) for line in data.train_file.read_text().splitlines()]
    tokens = [
        {"input_ids": [int(v) + 1 for v in row["x"]], "labels": [int(row["y"]) + 2, 1] + [-100] * int(row["y"])}
        for row in rows
    ]
    large = transformers.T5Config(vocab_size=16, decoder_start_token_id=0)
    model = transformers.T5ForConditionalGeneration(tiny_twin(large))

    def collate(batch):
        return {
            "input_ids": torch.tensor([row["input_ids"] for row in batch]),
            "labels": torch.tensor([(row["labels"] + [-100])[:3] for row in batch]),
        }

    trainer = transformers.Seq2SeqTrainer(
        model, arguments, collate, train_dataset=tokens, eval_dataset=tokens[:4], compute_metrics=count_exact
    )
    trainer.train(resume_from_checkpoint=data.resume_from and str(data.resume_from))


if __name__ == "__main__":
    main()
