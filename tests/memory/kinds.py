"""Run as a program: small pieces of training on a fake GPU, each in a fork of one prepared process. Prints JSON lines.

    python -m tests.memory.kinds kernels

Each line: the name, the trace's `unknown` and `notes`, the `peak` in bytes, and what the piece itself returned.
"""

import importlib
import json
import os
import signal
import sys

from pytest_trainguard.memory.replay.device import Device
from pytest_trainguard.memory.traced import engine, preparation
from pytest_trainguard.memory.traced.tracer import activate_tracer


def run_one(name, function, tracer):
    returned = None
    with activate_tracer(tracer):
        try:
            returned = function()
        except Exception as error:
            engine._note_failure(tracer, error)
    trace = tracer.trace("fake cuda")
    print(json.dumps({
        "name": name, "unknown": trace.unknown, "notes": trace.notes, "peak": tracer.peak, "returned": returned,
        "emptied": sum(event.kind == "empty cache" for event in trace.events),
    }), flush=True)  # fmt: skip


def main():
    module = importlib.import_module(f"tests.memory.programs.{sys.argv[1]}")
    names = sys.argv[2:] or list(module.KINDS)
    tracer = preparation.prepare_process(Device(), "fake cuda")
    for name in getattr(module, "PRELOADED", ()):
        importlib.import_module(name)
    for name in names:
        sys.stdout.flush()
        child = os.fork()
        if not child:
            signal.alarm(60)  # ended, not waited for: a test that hangs names nobody
            run_one(name, module.KINDS[name], tracer)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            print(json.dumps({"name": name, "unknown": f"the process ended with status {status}"}), flush=True)
    os._exit(0)  # torch's own end would have to take down threads of a device that is not there


if __name__ == "__main__":
    main()
