"""In the style of timm's `train.py`: argparse, epochs, `checkpoint.pth.tar`, `--resume PATH`, a validation an epoch."""

import argparse
import json
import os
from pathlib import Path

import torch
from torch.utils.data import DataLoader

parser = argparse.ArgumentParser(description="Train a classifier")
parser.add_argument("data", type=Path, metavar="DATA")
parser.add_argument("--epochs", type=int, default=300, metavar="N")
parser.add_argument("-b", "--batch-size", type=int, default=8, metavar="N")
parser.add_argument("--lr", type=float, default=0.01, metavar="LR")
parser.add_argument("--seed", type=int, default=42)
parser.add_argument("--resume", default="", type=str, metavar="PATH")
parser.add_argument("--output", default="output", type=Path)


def load(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [(torch.tensor(row["x"]), row["y"]) for row in rows]


def train_one_epoch(epoch, model, loader, optimizer, args):
    loader.generator.manual_seed(args.seed + epoch)
    model.train()
    for x, y in loader:
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"Train: {epoch} loss: {loss.item():.4f}")


@torch.no_grad()
def validate(model, loader):
    model.eval()
    hits = [(model(x).argmax(1) == y).float() for x, y in loader]
    return torch.cat(hits).mean().item() * 100


def save(state, folder, best):
    torch.save(state, folder / "checkpoint.pth.tar.tmp")
    os.replace(folder / "checkpoint.pth.tar.tmp", folder / "checkpoint.pth.tar")
    if best:
        torch.save(state, folder / "model_best.pth.tar.tmp")
        os.replace(folder / "model_best.pth.tar.tmp", folder / "model_best.pth.tar")


def main():
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    pairs = load(args.data)
    held_out = max(1, len(pairs) // 8)
    training = DataLoader(pairs[held_out:], args.batch_size, shuffle=True, generator=torch.Generator())
    validation = DataLoader(pairs[:held_out], args.batch_size)
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 32), torch.nn.BatchNorm1d(32), torch.nn.ReLU(), torch.nn.Linear(32, 2)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    start, best = 0, -1.0
    if args.resume:
        state = torch.load(args.resume, weights_only=True)
        model.load_state_dict(state["state_dict"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        start, best = state["epoch"], state["best"]
    args.output.mkdir(parents=True, exist_ok=True)
    for epoch in range(start, args.epochs):
        train_one_epoch(epoch, model, training, optimizer, args)
        scheduler.step()
        accuracy = validate(model, validation)
        is_best, best = accuracy > best, max(best, accuracy)
        state = {
            "epoch": epoch + 1, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(), "best": best,
        }  # fmt: skip
        save(state, args.output, is_best)


if __name__ == "__main__":
    main()
