"""A loop with Accelerate: for `python accelerated.py`, and for `accelerate launch accelerated.py`."""

import argparse
import json
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader


def epochs_from(step, accelerator, pairs, batch_size):
    """The loader of each epoch, from the one in which `step` lies, without the batches before it."""
    epoch, done = divmod(step, -(-len(pairs) // batch_size))
    while True:
        loader = DataLoader(pairs, batch_size, shuffle=True, generator=torch.Generator().manual_seed(epoch))
        loader = accelerator.prepare(loader)
        yield accelerator.skip_first_batches(loader, done) if done else loader
        epoch, done = epoch + 1, 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--max_steps", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--learning_rate", type=float, default=0.01)
    parser.add_argument("--save_steps", type=int, default=500)
    parser.add_argument("--resume_from", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True)
    rows = [json.loads(line) for line in args.data.read_text().splitlines()]
    pairs = [(torch.tensor(row["x"]), row["y"]) for row in rows]
    model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(32, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate)
    model, optimizer = accelerator.prepare(model, optimizer)
    step = 0
    if args.resume_from:
        accelerator.load_state(str(args.resume_from))
        step = int(args.resume_from.name.rpartition("-")[2])
    for loader in epochs_from(step, accelerator, pairs, args.batch_size):
        for x, y in loader:
            if step >= args.max_steps:
                return
            loss = torch.nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            accelerator.backward(loss)
            norm = accelerator.clip_grad_norm_(model.parameters(), 1.0)
            if not torch.isfinite(loss + norm):
                raise ValueError(f"step {step + 1}: loss {loss.item()} or gradient norm {norm.item()} is not finite")
            optimizer.step()
            step += 1
            if step % args.save_steps == 0:
                unfinished = args.output_dir / ".unfinished"
                accelerator.save_state(str(unfinished))
                unfinished.rename(args.output_dir / f"checkpoint-{step}")


if __name__ == "__main__":
    main()
