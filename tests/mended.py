"""A training program put together from the code that the guides print, and the same with one part as many write it.

`Mended` is all fixes; `WithoutFix` has for one case what it had before. They stand in a test that runs the case.
"""

import json
import random
from functools import cache
from types import SimpleNamespace

import torch
from torch import nn
from torch.utils.data import DataLoader

from pytest_trainguard import Trainer
from tests.guide_blocks import GUIDES, blocks_of

# The guides whose code for a plain loop is in it. A later one takes the place of what an earlier one defines.
FIXED = ("killed", "partial-save", "two-instances", "nan-loss", "empty-training-file")


@cache
def read_guide(slug):
    """What the guide's blocks for a plain loop define, by name."""
    path = GUIDES / f"{slug}.md"
    text = path.read_text(encoding="utf-8").splitlines()
    begin = text.index("### Plain PyTorch loop")
    end = next((n for n, line in enumerate(text) if n > begin and line.startswith("### ")), len(text))
    names = {}
    for block in blocks_of(path):
        if begin < block.line <= end:
            exec(compile(block.code, block.place, "exec"), names)
    return {name: value for name, value in names.items() if not name.startswith("__")}


def forget_random_states():
    return {}


def begin_at_the_first_row(step, dataset, batch_size, seed=0):
    while True:
        yield from DataLoader(dataset, batch_size)


def save_in_place(state, path):
    torch.save(state, path)


def take_the_newest(paths):
    for path in paths:
        return path, torch.load(path, map_location="cpu", weights_only=True)
    return None, None


def take_no_lock(folder):
    return None


def step_without_a_look(loss, model, optimizer, number):
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def read_what_is_there(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


BEFORE = {
    "killed": {
        "random_states": forget_random_states,
        "restore_random_states": lambda states: None,
        "batches_from": begin_at_the_first_row,
    },
    "partial-save": {"save": save_in_place, "newest_whole": take_the_newest},
    "two-instances": {"take_lock": take_no_lock},
    "nan-loss": {"step": step_without_a_look},
    "empty-training-file": {"read_rows": read_what_is_there},
}


class Mended(Trainer):
    """All fixes."""

    without = ""

    def make_data(self, folder, rows, seed):
        numbers = random.Random(seed)
        path = folder / "rows.jsonl"
        lines = [json.dumps({"x": [numbers.gauss(n % 2, 1) for _ in range(4)], "y": n % 2}) for n in range(rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def resume_from(self, output_dir):
        return output_dir

    def train(self, run):
        parts = SimpleNamespace(**{k: v for slug in FIXED for k, v in read_guide(slug).items()})
        vars(parts).update(BEFORE.get(self.without, {}))
        run.output_dir.mkdir(parents=True, exist_ok=True)
        lock = parts.take_lock(run.output_dir)  # noqa: F841  the lock ends with the object
        rows = parts.read_rows(run.data)
        dataset = [(torch.tensor(row["x"]), torch.tensor(row["y"])) for row in rows]
        torch.manual_seed(run.seed)
        model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))
        optimizer = torch.optim.AdamW(model.parameters(), 0.01)
        saved = sorted(run.output_dir.glob("checkpoint-*.pt"), key=lambda path: -int(path.stem.rpartition("-")[2]))
        _, state = parts.newest_whole(saved) if run.resume_from else (None, None)
        done = 0
        if state:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            parts.restore_random_states(state["random"])
            done = state["step"]
        elif run.resume_from:
            print("no checkpoint: starting at step 0")
        batches = parts.batches_from(done, dataset, 8, run.seed)
        for number in range(done + 1, run.max_steps + 1):
            x, y = next(batches)
            parts.step(nn.functional.cross_entropy(model(x), y), model, optimizer, number)
            if number % 2 == 0:
                state = {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "random": parts.random_states(),
                    "step": number,
                }
                parts.save(state, run.output_dir / f"checkpoint-{number}.pt")


WITHOUT = {slug: type(f"Without_{slug.replace('-', '_')}", (Mended,), {"without": slug}) for slug in BEFORE}
globals().update({one.__name__: one for one in WITHOUT.values()})
