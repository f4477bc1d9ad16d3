"""Run as a program: real training steps on the CPU, counted twice, and a third time with fake tensors. Prints JSON.

The tracer counts storages as operations return them; torch's profiler sees every call of the CPU's allocator.
"""

import json
import sys

import torch
from torch.profiler import ProfilerActivity, profile

from pytest_trainguard.memory.replay.device import Device
from pytest_trainguard.memory.traced import fakecuda, preparation
from pytest_trainguard.memory.traced.tracer import Tracer, activate_tracer
from tests.memory.programs.loops import Config, Model, optimizer_of


def steps(config):
    torch.manual_seed(0)
    model = Model(config)
    optimizer = optimizer_of(config.optimizer, model.parameters())
    for _ in range(2):
        ids = torch.ones(config.batch_size, config.max_length, dtype=torch.long)
        loss = torch.nn.functional.cross_entropy(model(ids), torch.zeros(config.batch_size, dtype=torch.long))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def traced(config, mode=None):
    tracer = Tracer("cpu", mode)
    with activate_tracer(tracer):
        steps(config)
    return [(event.kind, event.size) for event in tracer.trace("fake cpu").events]


def profiled(config):
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        steps(config)
    return [event.nbytes() for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]


def main():
    config = Config(**json.loads(sys.argv[1]))
    torch.set_num_threads(1)
    steps(config)  # what is made once and kept
    real = traced(config)
    allocator = profiled(config)
    preparation.prepare_process(Device(), "fake cpu")
    fake = traced(config, fakecuda.FakeMode())
    print(json.dumps({"real": real, "allocator": allocator, "fake": fake}))


if __name__ == "__main__":
    main()
