"""A Hydra application: `python hydra_app.py lr=0.1 output_dir=...`."""

import json
from dataclasses import dataclass
from pathlib import Path

import hydra
import torch
from hydra.core.config_store import ConfigStore


@dataclass
class TrainConfig:
    hidden: int = 32
    lr: float = 0.01
    save_every: int = 500
    data: str = "train.jsonl"
    output_dir: str = "run"
    max_steps: int = 1000
    resume_from: str | None = None


ConfigStore.instance().store("config", TrainConfig)


@hydra.main(config_name="config", version_base=None)
def main(cfg):
    torch.manual_seed(0)
    rows = [json.loads(line) for line in Path(cfg.data).read_text().splitlines()]
    x, y = torch.tensor([row["x"] for row in rows]), torch.tensor([row["y"] for row in rows])
    model = torch.nn.Sequential(torch.nn.Linear(8, cfg.hidden), torch.nn.ReLU(), torch.nn.Linear(cfg.hidden, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=cfg.lr)
    step = 0
    if cfg.resume_from:
        state = torch.load(cfg.resume_from, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    while step < cfg.max_steps:
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % cfg.save_every == 0:
            path = Path(cfg.output_dir) / f"checkpoint-{step}.pt"
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(state, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").rename(path)


if __name__ == "__main__":
    main()
