"""The doors: what stands at one is told in order, and a door at which nobody stands is not made."""

import json
import subprocess
import sys
from collections import UserDict

import pytest
import torch

from pytest_trainguard.recorder.tensors import tensors_in

# Hooks stay for a process's life: each program has its own.
HEAD = """
import io, json, os
import torch, torch.utils.data
from torch import nn
from torch.utils.checkpoint import checkpoint
from pytest_trainguard.recorder.doors import Doors, Observer

told = []
"""
SEES_PASSES = """
class Sees(Observer):
    def entered(self, module): told.append(f"into {type(module).__name__}")
    def left(self, module, output): told.append(f"out of {type(module).__name__}, {type(output).__name__}")

doors = Doors(None, [Sees()])
doors.install()
"""
PROGRAMS = {
    "nobody stands at any": (
        """
hooked = lambda: (torch.save, torch.autograd.backward, torch.autograd.grad, nn.Module.to, torch.amp.GradScaler.scale,
                  os.fsync, torch.utils.data.dataloader._BaseDataLoaderIter.__next__)
before = hooked()
Doors(None, [Observer(), Observer()]).install()
told += [hooked() == before, len(nn.modules.module._global_forward_pre_hooks)]
""",
        [True, 0],
    ),
    "every forward pass, the backward pass's own too": (
        SEES_PASSES
        + """
inner = nn.Linear(2, 2)
model = nn.Sequential(inner)
loss = checkpoint(inner, model(torch.ones(1, 2)), use_reentrant=False).sum()
told.append("backward")
loss.backward()
doors.fall_silent()
model(torch.ones(1, 2))
""",
        [
            "into Sequential", "into Linear", "out of Linear, Tensor", "out of Sequential, Tensor",
            "into Linear", "out of Linear, Tensor", "backward", "into Linear", "out of Linear, NoneType",
        ],
    ),
    "torch.autograd.grad where a module took it by name, before and after a server noted who did": (
        """
import sys, types
from pytest_trainguard.recorder import doors

def took_grad(name, folder):
    module = sys.modules[name] = types.ModuleType(name)
    module.__file__, module.by_name = os.path.join(folder, name + ".py"), torch.autograd.grad
    return module

class Sees(Observer):
    def differentiated(self, outputs, create_graph): told.append(len(outputs))

before, library = took_grad("before", os.getcwd()), took_grad("library", os.path.join(os.getcwd(), "site-packages"))
doors.note_imported()
after, plain = took_grad("after", os.getcwd()), torch.autograd.grad
Doors(None, [Sees()]).install()
x = torch.ones(2, requires_grad=True)
for module in (before, after):
    module.by_name(x.sum(), x)
told.append(library.by_name is plain)
""",
        [1, 1, True],
    ),
    "gradients that are asked for by hand": (
        """
class Sees(Observer):
    def differentiated(self, outputs, *, create_graph): told.append([float(outputs[0].detach()), create_graph])
    def backward(self, losses): told.append("backward")
    def forward(self, module, *, outermost): told.append("forward")

Doors(None, [Sees()]).install()
x = torch.ones(1, 2, requires_grad=True)
model = nn.Linear(2, 2)
loss = checkpoint(model, x, use_reentrant=False).sum() * 0 + x.sum()
torch.autograd.grad(loss, x, None, True, True)
torch.autograd.grad(loss, [x])
""",
        ["forward", [2.0, True], [2.0, False]],
    ),
    "a forward pass that fails is left": (
        SEES_PASSES
        + """
try:
    nn.Linear(2, 2)(torch.ones(1, 3))
except RuntimeError:
    told.append("failed")
""",
        ["into Linear", "out of Linear, NoneType", "failed"],
    ),
    "what is forked before anything is trained, once it makes a model; helpers are not": (
        """
class Sees(Observer):
    def __init__(self, name): self.name = name
    def built(self, module): told.append(f"{self.name}: built")
    def stepped(self, optimizer): told.append(f"{self.name}: stepped")

def train():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()

def fork(work):
    reading, writing = os.pipe()
    if not os.fork():
        told.clear()
        work()
        os.write(writing, json.dumps(told).encode())
        os._exit(0)
    os.wait()
    told.append(json.loads(os.read(reading, 1 << 16)))

Doors(None, [Sees("first")], anew=lambda: [Sees("anew")]).install()
fork(train)
fork(lambda: fork(train))
fork(lambda: torch.ones(2, requires_grad=True).sum().backward())
fork(lambda: (train(), fork(train)))
train()
fork(train)
""",
        [
            ["anew: built", "anew: stepped"], [["anew: built", "anew: stepped"]], [],
            ["anew: built", "anew: stepped", []], "first: built", "first: stepped", [],
        ],
    ),
    "nothing of what is forked, where nobody asks for it": (
        """
class Sees(Observer):
    def built(self, module): told.append("built")

Doors(None, [Sees()]).install()
if not os.fork():
    nn.Linear(2, 2)
    os._exit(len(told))
told.append(os.waitstatus_to_exitcode(os.wait()[1]))
""",
        [0],
    ),
    "before and after a save, and a batch": (
        """
class Sees(Observer):
    def fetching(self): told.append("fetching")
    def fetched(self, batch): told.append(batch.tolist())
    def saving(self): told.append("saving")
    def saved(self): told.append("saved")

Doors(None, [Sees(), Sees()]).install()
for batch in torch.utils.data.DataLoader(torch.arange(2), batch_size=2):
    told.append("at work")
torch.save({}, io.BytesIO())
try:
    torch.save(lambda: 0, io.BytesIO())
except Exception as error:
    told.append("failed")
""",
        [
            "fetching", "fetching", [0, 1], [0, 1], "at work", "fetching", "fetching",
            "saving", "saving", "saved", "saved", "saving", "saving", "saved", "saved", "failed",
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("program", "told"), PROGRAMS.values(), ids=PROGRAMS)
def test_observers_are_told(program, told):
    done = subprocess.run(
        [sys.executable, "-c", f"{HEAD}\n{program}\nprint(json.dumps(told))"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == told


class Data:
    """As PyTorch Geometric's."""

    def __init__(self, **values):
        self.values = values

    def to_dict(self):
        return self.values


class Holds:
    def __init__(self, data):
        self.data = data


def test_tensors_are_found_however_they_are_nested():
    one, two = torch.ones(1), torch.zeros(2)
    for value in ([one, (two, 3)], {"a": one, "b": [two]}, UserDict(a=one, b=two), Data(a=one, b=[two]),
                  Holds({"a": one, "b": two}), [Data(a=one), UserDict(b={"c": two})]):  # fmt: skip
        found = list(tensors_in(value))
        assert len(found) == 2
        assert found[0] is one
        assert found[1] is two
    assert list(tensors_in([None, 1, "a", torch.float32, object(), Holds(3)])) == []
