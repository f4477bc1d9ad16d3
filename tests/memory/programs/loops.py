"""Plain training loops as people write them, with the choices that decide their memory as settings."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import pytest_trainguard as trainguard

WIDTH = 256


@dataclass
class Config:
    batch_size: int = 32
    max_length: int = 64
    layers: int = 4
    precision: str = "fp32"
    accumulation: int = 1
    checkpointing: bool = False
    optimizer: str = "adamw"
    attention: bool = False
    mask: bool = False
    evaluate: int = 0
    ema: bool = False
    workers: int = 0
    refuses: int = 0


class Block(nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.attention = attention
        self.projection = nn.Linear(WIDTH, 3 * WIDTH if attention else WIDTH)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x, mask=None):
        if not self.attention:
            return x + self.norm(torch.relu(self.projection(x)))
        rows, length, _ = x.shape
        parts = self.projection(x).view(rows, length, 3, 4, WIDTH // 4).permute(2, 0, 3, 1, 4)
        out = nn.functional.scaled_dot_product_attention(*parts, attn_mask=mask)
        return x + self.norm(out.transpose(1, 2).reshape(x.shape))


class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.words = nn.Embedding(1000, WIDTH, padding_idx=0)
        self.blocks = nn.ModuleList(Block(config.attention) for _ in range(config.layers))
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, ids):
        x = self.words(ids)
        mask = (ids != 0)[:, None, None, :] if self.config.mask else None
        for block in self.blocks:
            x = checkpoint(block, x, mask, use_reentrant=False) if self.config.checkpointing else block(x, mask)
        return self.head(x.mean(dim=1))


def optimizer_of(name, parameters):
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=0.1)
    if name == "adafactor":
        return torch.optim.Adafactor(parameters, lr=0.01)
    options = {"adamw": {}, "foreach": {"foreach": True}, "single": {"foreach": False}, "fused": {"fused": True}}
    return torch.optim.AdamW(parameters, **options[name])


class Rows(torch.utils.data.Dataset):
    def __init__(self, path, length):
        texts = [json.loads(line)["text"].encode() for line in Path(path).read_text().splitlines()]
        self.rows = [torch.tensor(list(text[:length])) for text in texts]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


def collate(rows):
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)


def main(config, data, output_dir, max_steps):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = Model(config).to(device)
    average = torch.optim.swa_utils.AveragedModel(model) if config.ema else None
    optimizer = optimizer_of(config.optimizer, model.parameters())
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.precision)
    loader = torch.utils.data.DataLoader(
        Rows(data, config.max_length), config.batch_size, collate_fn=collate, num_workers=config.workers,
        pin_memory=device.type == "cuda", shuffle=False,
    )  # fmt: skip
    step = micro = 0
    while step < max_steps:
        for batch in loader:
            ids = batch.to(device, non_blocking=True)
            labels = torch.zeros(len(ids), dtype=torch.long, device=device)
            with torch.autocast(device.type, dtype=half) if half else contextlib.nullcontext():
                loss = nn.functional.cross_entropy(model(ids), labels) / config.accumulation
            scaler.scale(loss).backward()
            micro += 1
            if micro % config.accumulation:
                continue
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            if average is not None:
                average.update_parameters(model)
            step += 1
            print(f"step {step} loss {loss.item():.4f}")
            if step == max_steps:
                break
    if config.evaluate:
        with torch.no_grad():
            ids = torch.ones(config.evaluate, config.max_length, dtype=torch.long, device=device)
            print((model(ids).argmax(dim=1).cpu().numpy() == 0).mean())
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, Path(output_dir) / "checkpoint.pt")


class Loop(trainguard.Trainer):
    config = Config

    def make_data(self, folder, rows, seed):
        path = folder / "rows.jsonl"
        path.write_text("".join(json.dumps({"text": f"row {i} of few words"}) + "\n" for i in range(rows)))
        return path

    def train(self, run):
        if run.config.refuses and any(len(line) > run.config.refuses for line in run.data.read_text().splitlines()):
            print(f"rows.jsonl: a row has over {run.config.refuses} characters")
            return 2
        return main(run.config, run.data, run.output_dir, run.max_steps)
