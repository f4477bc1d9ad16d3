"""What goes wrong on purpose: one `Fault` is one thing, at one place, at one step.

Here faults are only named; `inject` brings them about inside a run, through the recorder's doors. The process and
its files are real: signals are real signals, a full disk is a real full disk. Only what no machine without a GPU can do
for real (device errors, GPU out of memory) and what is an exception by nature is raised inside the process.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "DEVICE_ERRORS", "DOORS", "Fault", "device_error", "exhaust_memory", "fill_disk", "hang", "inf", "io_error", "kill",
    "kill_in_save", "list_otherwise", "nan", "offline", "out_of_memory", "overflow", "pause", "pretended_gpus", 
    "raises", "reboot", "reseed", "set_clock", "terminate", "undo_steps", "worse_evaluations",
]  # fmt: skip

OOM_MESSAGE = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 39.39 GiB of which 1.12 GiB is "
    "free. Including non-PyTorch memory, this process has 38.26 GiB memory in use. Of the allocated memory 36.87 GiB "
    "is allocated by PyTorch, and 913.41 MiB is reserved by PyTorch but unallocated."
)  # torch's own words, c10/cuda/CUDACachingAllocator.cpp
HOST_MEMORY_LEFT = 512 * 2**20  # bytes for a run to end in order
FILLER = "filler"  # the file on a small disk that leaves no room there
DEVICE_ERRORS = {
    "illegal access": "CUDA error: an illegal memory access was encountered",
    "ECC": "CUDA error: uncorrectable ECC error encountered",
    "lost device": "CUDA error: unspecified launch failure",
}  # cudaGetErrorString's words after torch's own, c10/cuda/CUDAException.cpp
DEVICE_ADVICE = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
    "incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\n"
)
DOORS = ("build", "move", "read", "data", "forward", "evaluate", "backward", "optimizer", "save", "sync")


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong on purpose. Made by the functions below; also in JSON, on its way to the run.

    Attributes:
        kind: `nan`, `inf`, `overflow`, `raise`, `signal`, `terminate`, `hang`, `pause`, `fill_disk`, `offline`,
            `io_error`, `exhaust`, `device`, `reboot`, `clock`, `gpus`, `seeds`, `undo`, `listing`, `worse`.
        where: the door at which it enters (`DOORS`), or for numbers `batch`, `activation`, `loss`, `gradient`.
        step: the optimizer step during which it comes about, counted from 1 in each run; for `save` and `sync`, the
            first write to the output folder (or fsync) once that many steps are complete.
        nth: at the doors `save`, `sync` and `read`, which such event it is, counted from 1.
        value: the exception's or the signal's name, the file that a pause waits for, the seconds of a clock's jump, the
            steps after which a run is ended.
        text: the exception's message.
    """

    kind: str
    where: str = "forward"
    step: int = 1
    nth: int = 1
    value: str = ""
    text: str = ""

    def __str__(self) -> str:
        at = f"while saving after step {self.step}" if self.where in ("save", "sync") else f"in step {self.step}"
        at = {"build": "while the model is built", "move": "while the model goes to its device"}.get(self.where, at)
        return {
            "nan": f"NaN put into the {self.where} {at}",
            "inf": f"infinity put into the {self.where} {at}",
            "overflow": f"the {self.where} made to overflow {at}",
            "raise": f"{self.value} raised in the {self.where} door {at}",
            "signal": f"{self.value} {at}",
            "terminate": f"SIGTERM in the {self.where} door {at}",
            "hang": f"{self.where} never returns {at}",
            "pause": f"held {at}",
            "fill_disk": f"disk full from step {self.step}",
            "offline": "no network",
            "gpus": "pretended GPUs",
            "seeds": "every seed that is set is another one",
            "undo": "every optimizer step undone",
            "worse": f"evaluations far worse from step {self.step} on",
            "listing": "the files of the data listed in another order",
            "io_error": f"EIO in the {self.where} door {at}",
            "exhaust": f"host memory exhausted in the {self.where} door {at}",
            "device": f"{self.text.splitlines()[0] if self.text else 'a device error'} in the {self.where} door {at}",
            "reboot": f"SIGTERM in step {self.step}, SIGKILL soon after",
            "clock": f"the clock set by {self.value} s {at}",
        }[self.kind]


def nan(where: str, step: int) -> Fault:
    """NaN in the `batch`, an `activation`, the `loss` (every output of the model) or a `gradient` of one step."""
    return Fault("nan", where, step)


def inf(where: str, step: int) -> Fault:
    """Infinity at the same places as `nan`."""
    return Fault("inf", where, step)


def overflow(where: str, step: int) -> Fault:
    """Numbers so large, yet finite, that what is computed from them overflows; at the same places as `nan`."""
    return Fault("overflow", where, step)


def raises(exception: type[BaseException], where: str, step: int, text: str = "", nth: int = 1) -> Fault:
    """A built-in exception, raised at one of the `DOORS`; at `save`, at the `nth` write."""
    return Fault("raise", where, step, nth=nth, value=exception.__name__, text=text or f"raised on purpose in {where}")


def out_of_memory(where: str, step: int) -> Fault:
    """`torch.OutOfMemoryError` with torch's own message, at one of the `DOORS`.

    At `build` the model's first parameter is being made; at `move` a module with parameters goes to its device.
    """
    return Fault("raise", where, step, value="OutOfMemoryError", text=OOM_MESSAGE)


def io_error(where: str, step: int, nth: int = 1) -> Fault:
    """EIO, as a broken disk gives it: `OSError` without a file's name in it, as `read`, `write` and `fsync` raise it.

    Reads of text fail for real, by the kernel's word, where the run may mount (as root); else, and in writing, the
    error is raised in the process. At the doors `read` (the program opens its data for the `nth` time), `save` (the
    `nth` write to the output folder) and `sync` (the `nth` fsync there).
    """
    return Fault("io_error", where, step, nth=nth)


def exhaust_memory(where: str, step: int = 1, nth: int = 1, asks: str = "torch") -> Fault:
    """A real limit (RLIMIT_DATA) on what the process may take beside `HOST_MEMORY_LEFT`, and a request for more.

    Args:
        where: one of the `DOORS`; the request is made there, in the program's place, and really refused.
        step: the optimizer step, counted from 1.
        nth: at the doors `read` and `save`, which such event it is, counted from 1.
        asks: `"torch"`, whose allocator then raises its RuntimeError, or `"python"`: MemoryError, without a word.
    """
    return Fault("exhaust", where, step, nth=nth, value=asks)


def device_error(error: str, step: int, where: str = "forward") -> Fault:
    """`torch.AcceleratorError` with CUDA's own message, from there on at every use of the model: the context is lost.

    Args:
        error: one of `DEVICE_ERRORS`.
        step: the optimizer step, counted from 1.
        where: `forward`, `backward` or `optimizer`.
    """
    return Fault("device", where, step, value=error, text=DEVICE_ERRORS[error] + DEVICE_ADVICE)


def reboot(step: int, nth: int = 0) -> Fault:
    """A real SIGTERM in the forward pass of a step; a real SIGKILL when the grace period is over.

    The grace ends two steps later, or at the `nth` write to the output folder (0: no write ends it): in the run's
    own events, so that no verdict hangs on the speed of a machine.
    """
    return Fault("reboot", "forward", step, nth=nth)


def set_clock(step: int, seconds: int) -> Fault:
    """`time.time()` and `time.time_ns()` jump by so many seconds, wherever the program got them from.

    Nobody but root may set a machine's clock, and no namespace has one of its own, so this is done in the process.
    `time.monotonic` and `time.perf_counter` go on as they should.
    """
    return Fault("clock", "forward", step, value=str(seconds))


def kill(step: int, signum: signal.Signals = signal.SIGKILL) -> Fault:
    """A real signal that the run gets in the forward pass of a step."""
    return Fault("signal", "forward", step, value=signum.name)


def terminate(where: str, step: int = 1, nth: int = 1) -> Fault:
    """A real SIGTERM from another process, to the run and to the processes that it started, as a scheduler sends it.

    At one of the `DOORS`; at `evaluate` a forward pass that does not train, at `save` the `nth` write.
    """
    return Fault("terminate", where, step, nth=nth)


def kill_in_save(step: int, nth: int) -> Fault:
    """A real SIGKILL at the `nth` write to the output folder after a step."""
    return Fault("signal", "save", step, nth=nth, value=signal.SIGKILL.name)


def hang(step: int) -> Fault:
    """A forward pass that never returns."""
    return Fault("hang", "forward", step)


def pause(step: int, until: Path) -> Fault:
    """A forward pass that waits until a file exists."""
    return Fault("pause", "forward", step, value=str(until))


def fill_disk(step: int) -> Fault:
    """The file system of the output folder is filled to its last byte; see `Guard.run(small_disk=...)`.

    Where the user may not mount one, a real limit on the size of files (RLIMIT_FSIZE) takes its place.
    """
    return Fault("fill_disk", "forward", step)


def undo_steps(until: int | None = None) -> Fault:
    """Every optimizer step is taken, and then its parameters are as before: a run in which nothing is learnt.

    Args:
        until: after so many steps the process is ended by SIGKILL; None where the program ends by itself.
    """
    return Fault("undo", "optimizer", value="" if until is None else str(until))


def worse_evaluations(step: int) -> Fault:
    """From the evaluation after this step on, what the model puts out without gradients is far from right."""
    return Fault("worse", "evaluate", step)


def pretended_gpus() -> Fault:
    """torch.cuda tells of the devices that CUDA_VISIBLE_DEVICES names; what goes to one stays on the CPU: `gpus`."""
    return Fault("gpus", "start")


def reseed() -> Fault:
    """Whatever Python's, NumPy's and torch's generators are seeded with in this process, it is another number."""
    return Fault("seeds", "start")


def list_otherwise() -> Fault:
    """Python lists the folders of the data in another order than the file system's, as another file system does.

    It comes about when the program lists one.
    """
    return Fault("listing", "read")


def offline(*, silent: bool = False) -> Fault:
    """No network: every look-up and connection beyond this machine is recorded, and fails at once.

    With `silent` none of them is ever answered, as where packets are lost: each waits until the program is ended.
    """
    return Fault("offline", "network", value="silent" if silent else "")
