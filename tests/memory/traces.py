"""A trace such as a small training program makes, two steps long, for what is drawn and written from one."""

from pytest_trainguard.memory import Event, Trace, Workspace

MIB = 2**20
LAYERS, WEIGHTS, ACTIVATIONS = 6, 200 * MIB, 150 * MIB


def small_program() -> Trace:
    """Six layers: weights, then forward, backward and optimizer step, twice."""
    events = []
    alive = {}

    def born(block, size, **of):
        alive[block] = Event("alloc", block, size, **of)
        events.append(alive[block])

    def died(block, phase, step):
        old = alive.pop(block)
        events.append(Event("free", block, old.size, 0, old.category, old.op, old.module, phase, step))

    for layer in range(LAYERS):
        born(layer, WEIGHTS, category="weight", op="aten::empty", module="", phase="build")
    for step in range(2):
        base = 100 * (step + 1)
        born(base + 90, 8 * MIB, category="input", op="aten::_to_copy", step=step)
        for layer in range(LAYERS):
            name = f"layers.{layer}"
            born(base + layer, ACTIVATIONS, category="activation", op="aten::addmm", module=name, step=step)
        for layer in reversed(range(LAYERS)):
            of = {"module": f"layers.{layer}", "phase": "backward", "step": step}
            born(base + 50 + layer, ACTIVATIONS, category="temporary", op="aten::mm", **of)
            born(base + 20 + layer, WEIGHTS, category="gradient", op="aten::mm", **of)
            died(base + layer, "backward", step)
            died(base + 50 + layer, "backward", step)
        for layer in range(LAYERS if step == 0 else 0):
            for moment in range(2):
                of = {"category": "optimizer state", "op": "aten::zeros_like", "phase": "optimizer step"}
                born(1000 + 10 * layer + moment, WEIGHTS, step=step, **of)
        for layer in range(LAYERS):
            died(base + 20 + layer, "optimizer step", step + 1)
        died(base + 90, "optimizer step", step + 1)
    used = [Workspace("cublas", "main", 0, LAYERS + 1), Workspace("cublas", "autograd", 0, 2 * LAYERS + 1)]
    return Trace(events, workspaces=used, torch="2.13.0+cpu")
