"""A LightningCLI: `python cli.py fit --trainer.max_steps 8 ...`."""

import json
from pathlib import Path

import lightning
import torch
from lightning.pytorch.cli import LightningCLI
from torch.utils.data import DataLoader


class Rows(lightning.LightningDataModule):
    def __init__(self, data: Path, batch_size: int = 8):
        super().__init__()
        rows = [json.loads(line) for line in data.read_text().splitlines()]
        self.pairs = [(torch.tensor(row["x"]), row["y"]) for row in rows]
        self.batch_size = batch_size

    def train_dataloader(self):
        return DataLoader(self.pairs, self.batch_size)


class Classifier(lightning.LightningModule):
    def __init__(self, hidden: int = 32, lr: float = 0.01):
        super().__init__()
        self.lr = lr
        self.net = torch.nn.Sequential(torch.nn.Linear(8, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 2))

    def training_step(self, batch):
        return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


class Saving(lightning.pytorch.callbacks.ModelCheckpoint):
    def __init__(self, save_every: int = 500):
        super().__init__(every_n_train_steps=save_every, save_top_k=-1)


if __name__ == "__main__":
    defaults = {
        "accelerator": "cpu", "logger": False, "enable_progress_bar": False, "use_distributed_sampler": False,
        "enable_model_summary": False,
    }  # fmt: skip
    overwritten = {"overwrite": True}  # else a second start in the same folder ends at the config.yaml of the first
    LightningCLI(Classifier, Rows, seed_everything_default=0, trainer_defaults=defaults, save_config_kwargs=overwritten)
