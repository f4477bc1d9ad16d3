"""The warm launch: however a run ends, its outcome is right, and nothing is left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pytest_trainguard import faults
from pytest_trainguard.launch.protocol import RunRequest
from pytest_trainguard.launch.supervisor import HEAD, TAIL, Output
from pytest_trainguard.subject.launchpad import Launchpad
from pytest_trainguard.subject.servers import MOST_WARM
from pytest_trainguard.verdicts.errors import CannotJudge
from tests.projects import Project

# Seen in the command line of what is left behind; another for each worker of xdist.
SLEEP = f"sleep 12345.{os.getpid()}"

PROGRAMS = (
    f"MARK = {SLEEP!r}\n"
    + '''
import ctypes
import mmap
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref

import torch

from pytest_trainguard import Trainer


def steps(count=1):
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(count):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()


class Returns(Trainer):
    def train(self, run):
        if "seed" in run.settings:
            torch.manual_seed(run.settings["seed"])
        steps(run.max_steps)
        return run.settings.get("code")


class ExitsWith(Trainer):
    def train(self, run):
        sys.exit(run.settings["code"])


class Raises(Trainer):
    def train(self, run):
        self.inner()

    def inner(self):
        raise RuntimeError("the message")


class Kills(Trainer):
    def train(self, run):
        steps(2)
        os.kill(os.getpid(), run.settings["signal"])


class Segfaults(Trainer):
    def train(self, run):
        steps(2)
        ctypes.string_at(0)


class Quits(Trainer):
    def train(self, run):
        steps(2)
        print("buffered and lost", end="")
        os._exit(3)


class Chatters(Trainer):
    def train(self, run):
        sys.stdout.write("first line\\n")
        sys.stdout.flush()
        block = b"x" * 65535 + b"\\n"
        for _ in range(1 << 14):
            os.write(1, block)
        print("last line")


class Hangs(Trainer):
    def train(self, run):
        steps(2)
        while True:
            time.sleep(0.01)  # here it hangs


class Leaves(Trainer):
    def train(self, run):
        subprocess.Popen(MARK.split())


class Daemon(Trainer):
    """Forks twice, in a session of its own, its streams closed: what a launcher's daemon does."""

    def train(self, run):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.closerange(0, 256)
                os.execvp("sleep", MARK.split())
            os._exit(0)
        os.wait()
        time.sleep(0.2)


class Closes(Trainer):
    def train(self, run):
        os.close(1)
        os.close(2)
        steps(3)


class Writes(Trainer):
    def train(self, run):
        (run.output_dir / "result.txt").write_text("found")
        steps(3)


class Wanders(Trainer):
    def train(self, run):
        os.chdir("/")
        steps(3)
        (run.output_dir / "result.txt").write_text("found")


class Allocates(Trainer):
    def train(self, run):
        torch.ones(run.settings["mebibytes"] << 18)
        steps(1)


class MapsItsData(Trainer):
    def train(self, run):
        with open(run.output_dir / "data", "wb") as out:
            out.truncate(1 << 30)
        with open(run.output_dir / "data", "rb") as file:
            data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        assert sum(data[place] for place in range(0, len(data), 1 << 16)) == 0
        steps(1)


class FillsDisk(Trainer):
    def train(self, run):
        with open(run.output_dir / "big", "wb") as out:
            out.write(bytes(1 << 20))
            print("one fits", flush=True)
            out.write(bytes(64 << 20))


class Listens(Trainer):
    def train(self, run):
        got = []
        signal.signal(signal.SIGTERM, lambda *_: got.append("TERM"))
        signal.signal(signal.SIGUSR1, lambda *_: got.append("USR1"))
        (run.output_dir / "ready").touch()
        while len(got) < 2:
            time.sleep(0.01)
        print(got)
        return 143


class Interrupted(Trainer):
    def train(self, run):
        (run.output_dir / "ready").touch()
        time.sleep(60)


def square(number):
    return number * number


class Forks(Trainer):
    def train(self, run):
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(pool.map(square, range(4)))
        steps(3)


class Deletes(Trainer):
    def train(self, run):
        shutil.rmtree(run.output_dir)
        steps(3)


class Patches(Trainer):
    def train(self, run):
        torch.nn.Linear.forward = None
        torch.save = None
        os.environ["OMP_NUM_THREADS"] = "spoilt"


class Threads(Trainer):
    def train(self, run):
        threading.Thread(target=lambda: (time.sleep(0.3), print("the thread came to its end"))).start()


class Finalizes(Trainer):
    def train(self, run):
        weakref.finalize(Finalizes, print, "its own finalizer")
        alive = [finalizer.peek() for finalizer in list(weakref.finalize._registry) if finalizer.atexit]
        print([function.__module__ for _, function, *_ in alive if function.__module__ == "torch.library"])


class ReadsInput(Trainer):
    def train(self, run):
        print(repr(sys.stdin.read()), os.isatty(0))
'''
)


@pytest.fixture(scope="module")
def pad(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    (root / "odd.py").write_text(PROGRAMS)
    pad = Launchpad(root, tmp_path_factory.mktemp("pad"), [str(root)], 30.0)
    yield pad
    pad.close()


@pytest.fixture
def start(pad):
    def start(name, **options):
        return pad.subject(name, f"odd:{name}").start(RunRequest("tried", **{"steps": 3, **options}))

    return start


@pytest.fixture
def run(start):
    return lambda name, **options: start(name, **options).outcome()


def asleep():
    """Processes that a run left behind, in the whole machine."""
    return [p.pid for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == SLEEP.split()]


def until(true, seconds=5.0):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


# --- how a run ends


@pytest.mark.parametrize(("code", "exit"), [(None, 0), (0, 0), (5, 5)])
def test_returned_codes(run, code, exit):
    outcome = run("Returns", settings={"code": code})
    assert (outcome.exit, len(outcome.losses), outcome.timed_out) == (exit, 3, False)
    assert outcome.leftovers == ()
    assert outcome.peak_rss > 50 << 20
    assert 0 < outcome.seconds < 10


@pytest.mark.parametrize(
    ("code", "exit", "output"), [(None, 0, ""), (7, 7, ""), (-1, 255, ""), ("why\nit ended", 1, "why\nit ended\n")]
)
def test_sys_exit(run, code, exit, output):
    outcome = run("ExitsWith", settings={"code": code})
    assert (outcome.exit, outcome.output) == (exit, output)


def test_exception_without_the_harness_frames(run):
    outcome = run("Raises")
    assert outcome.exit == 1
    assert outcome.message == "RuntimeError: the message"
    assert "in inner" in outcome.output
    assert "pytest_trainguard" not in outcome.output


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT])
def test_ended_by_a_signal(run, signum):
    outcome = run("Kills", settings={"signal": int(signum)})
    assert outcome.exit == -signum
    assert len(outcome.losses) == 2
    assert outcome.how == f"killed by {signum.name} after 2 optimizer steps"


def test_segfault(run):
    outcome = run("Segfaults")
    assert outcome.exit == -signal.SIGSEGV
    assert len(outcome.losses) == 2
    assert "string_at" in outcome.stack
    assert not list(Path(outcome.output_dir).glob("core*"))


def test_quits_in_the_middle(run):
    outcome = run("Quits")
    assert (outcome.exit, len(outcome.losses)) == (3, 2)


def test_a_gigabyte_of_output(start):
    began = time.monotonic()
    started = start("Chatters", time_limit=60)
    supervisor = psutil.Process(started.pid).parent()
    before, peak = supervisor.memory_info().rss, 0
    while psutil.pid_exists(started.pid) and supervisor.is_running():
        try:
            peak = max(peak, supervisor.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.05)
    outcome = started.outcome()
    assert outcome.exit == 0
    assert outcome.output_bytes == (1 << 30) + len("first line\nlast line\n")
    assert outcome.output.startswith("first line\n")
    assert outcome.output.endswith("last line\n")
    assert "bytes left out ...]" in outcome.output
    assert len(outcome.output) < HEAD + TAIL + 100
    assert peak - before < 32 << 20
    assert time.monotonic() - began < 30


def test_output_is_kept_whole_up_to_its_limit():
    output = Output()
    for number in range(1000):
        output.add(b"%05d" % number)
    assert output.text() == "".join(f"{number:05}" for number in range(1000))
    output.add(b"y" * (HEAD + TAIL))
    text = output.text()
    assert text.startswith("00000")
    assert output.total == 5000 + HEAD + TAIL
    assert f"[... {output.total - HEAD - TAIL} bytes left out ...]" in text


def test_a_hang(run):
    outcome = run("Hangs", time_limit=1.0)
    assert outcome.timed_out
    assert len(outcome.losses) == 2
    line = 1 + PROGRAMS[: PROGRAMS.index("# here it hangs")].count("\n")
    assert f'odd.py", line {line} in train' in outcome.stack
    assert "pytest_trainguard" not in outcome.stack
    assert "hung, and was ended by the harness after 2 optimizer steps" in outcome.how
    assert 1.0 <= outcome.seconds < 5.0


@pytest.mark.parametrize("name", ["Leaves", "Daemon"])
def test_what_is_left_behind_is_told_and_ended(run, name):
    outcome = run(name, grace=0.3)
    assert outcome.exit == 0
    assert [left.command for left in outcome.leftovers] == [SLEEP]
    assert not psutil.pid_exists(outcome.leftovers[0].pid)
    assert asleep() == []


def test_closing_its_own_streams(run):
    outcome = run("Closes")
    assert (outcome.exit, len(outcome.losses), outcome.output) == (0, 3, "")


def test_changing_its_folder(run):
    outcome = run("Wanders")
    assert (outcome.exit, len(outcome.losses)) == (0, 3)
    assert outcome.changed() == ["result.txt"]


def test_memory_limit(run):
    small = run("Allocates", settings={"mebibytes": 16}, memory_limit=512 << 20)
    assert (small.exit, len(small.losses)) == (0, 1)
    big = run("Allocates", settings={"mebibytes": 1024}, memory_limit=512 << 20)
    assert big.exit == 1
    assert "allocate" in big.message
    assert run("Allocates", settings={"mebibytes": 1024}).exit == 0


def test_mapped_files_do_not_count_against_the_memory_limit(run):
    outcome = run("MapsItsData", memory_limit=256 << 20)
    assert (outcome.exit, len(outcome.losses)) == (0, 1), outcome.output


def test_a_small_disk(run):
    outcome = run("FillsDisk", small_disk=8 << 20)
    if not outcome.small_disk:
        pytest.skip("this user may not mount a file system")
    assert outcome.exit == 1
    assert "one fits" in outcome.output
    assert "No space left on device" in outcome.message
    assert outcome.changed() == ["big"]
    assert 1 << 20 <= outcome.after["big"][0] <= 8 << 20
    assert run("FillsDisk").exit == 0
    assert not [
        line for line in Path("/proc/mounts").read_text().splitlines() if str(outcome.output_dir.parent) in line
    ]


def test_what_filled_a_small_disk_is_not_kept(run):
    outcome = run("Writes", small_disk=8 << 20, fault=faults.fill_disk(2))
    if not outcome.small_disk:
        pytest.skip("this user may not mount a file system")
    assert outcome.recording.fault_fired
    assert [path.name for path in outcome.output_dir.parent.iterdir()] == ["output"]
    assert outcome.changed() == ["result.txt"]


def test_file_permissions_apply_to_root_too(run, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    outcome = run("FillsDisk", output_dir=tmp_path / "locked", ordinary_user=True)
    assert outcome.exit == 1
    assert "Permission denied" in outcome.message
    assert outcome.changed() == []


def test_signals_are_passed_on(start):
    started = start("Listens")
    assert until((started.output_dir / "ready").exists)
    started.signal(signal.SIGTERM)
    time.sleep(0.1)
    started.signal(signal.SIGUSR1, group=True)
    outcome = started.outcome()
    assert outcome.exit == 143
    assert outcome.output == "['TERM', 'USR1']\n"


def test_ctrl_c(start):
    started = start("Interrupted")
    assert until((started.output_dir / "ready").exists)
    started.signal(signal.SIGINT, group=True)
    outcome = started.outcome()
    assert outcome.exit == 130
    assert "KeyboardInterrupt" in outcome.message


def test_children_of_its_own(run):
    outcome = run("Forks")
    assert (outcome.exit, outcome.output, len(outcome.losses)) == (0, "[0, 1, 4, 9]\n", 3)
    assert outcome.leftovers == ()


def test_deleting_its_output_folder(run):
    outcome = run("Deletes")
    assert (outcome.exit, len(outcome.losses), outcome.after) == (0, 3, {})


def test_nothing_leaks_from_run_to_run(run):
    assert run("Patches").exit == 0
    after = run("Returns")
    assert (after.exit, len(after.losses)) == (0, 3)
    assert run("Patches").exit == 0


def test_threads_come_to_their_end(run):
    assert run("Threads").output == "the thread came to its end\n"


def test_its_own_finalizers_run_and_those_of_torchs_operators_do_not(run):
    assert run("Finalizes").output == "[]\nits own finalizer\n"


def test_standard_input_is_empty(run):
    assert run("ReadsInput").output == "'' False\n"


def test_generators_begin_anew_in_each_run(run):
    alike = [run("Returns", settings={"code": 0, "seed": 1}).losses for _ in range(2)]
    assert alike[0] == alike[1]
    others = [run("Returns", settings={"code": 0}).losses for _ in range(2)]
    assert others[0] != others[1], "a program that does not seed them is as little repeatable as in production"


def test_runs_side_by_side(start):
    started = [start("Returns", settings={"code": number}) for number in range(6)]
    assert [one.outcome().exit for one in started] == list(range(6))


def test_a_run_that_nobody_waits_for_is_ended(start):
    started = start("Hangs")
    assert psutil.pid_exists(started.pid)
    started.kill()
    assert until(lambda: not psutil.pid_exists(started.pid))


def test_a_lost_supervisor_is_told(start):
    started = start("Hangs")
    process = psutil.Process(started.pid)
    process.parent().kill()
    with pytest.raises(CannotJudge, match="supervisor was lost"):
        started.outcome()
    assert until(lambda: not process.is_running()), "the run ends with its supervisor"
    assert start("Hangs", time_limit=0.5).outcome().timed_out


def test_runs_one_after_the_other_have_one_supervisor(start):
    def supervisor(**options):
        started = start("Hangs", time_limit=0.5, **options)
        found = psutil.Process(started.pid).ppid()
        assert started.outcome().timed_out
        started.signal(signal.SIGTERM)  # too late, and not for the next run
        return found

    first = supervisor()
    assert supervisor() == first
    assert supervisor(ordinary_user=True) != first, "one that gave up its rights is for one run alone"
    beside = start("Hangs", time_limit=1)
    assert psutil.Process(beside.pid).ppid() == first
    assert supervisor() != first
    os.kill(first, signal.SIGKILL)
    with pytest.raises(CannotJudge, match="supervisor was lost"):
        beside.outcome()


def test_no_more_processes_is_told_as_what_it_is():
    refused = """
import os, socket
from pytest_trainguard.launch import protocol, server, wire

def refuse():
    raise BlockingIOError(11, "Resource temporarily unavailable")

os.fork = refuse
ours, theirs = socket.socketpair()
link, given = socket.socketpair()
wire.send(ours, protocol.encode(protocol.Fork()), (given.fileno(),))
given.close()
ours.shutdown(socket.SHUT_WR)
server.serve(theirs)
print(protocol.decode(wire.receive(link)[0]).reason)
"""
    told = subprocess.run([sys.executable, "-c", refused], capture_output=True, text=True, check=True).stdout
    assert told.startswith("the harness can start no process: as many as are allowed run already (ulimit -u;")


def test_a_supervisor_that_ended_while_it_waited(start):
    started = start("Hangs", time_limit=0.5)
    waiting = psutil.Process(started.pid).parent()
    assert started.outcome().timed_out
    waiting.kill()
    assert until(lambda: not waiting.is_running())
    assert start("Hangs", time_limit=0.5).outcome().timed_out


def test_a_base_server_that_was_ended_is_started_again(start, pad):
    assert start("Returns").outcome().exit == 0
    base, own = pad.servers.base().pid, pad.subject("Returns", "odd:Returns").server.pid
    os.kill(base, signal.SIGKILL)
    assert until(lambda: not psutil.pid_exists(base) or psutil.Process(base).status() == "zombie")
    assert until(lambda: not psutil.pid_exists(own)), "it ends with the base server"
    assert start("Returns").outcome().exit == 0
    assert pad.servers.base().pid != base


def test_a_trainers_server_that_was_ended_is_started_again(start, pad):
    assert start("Returns").outcome().exit == 0
    own = pad.subject("Returns", "odd:Returns").server.pid
    os.kill(own, signal.SIGKILL)
    assert until(lambda: not psutil.pid_exists(own))
    assert start("Returns").outcome().exit == 0


def test_closing_ends_every_server(tmp_path):
    (tmp_path / "odd.py").write_text(PROGRAMS)
    pad = Launchpad(tmp_path, tmp_path / "pad", [str(tmp_path)], 30.0)
    pad.servers.folder.mkdir()
    outcome = pad.subject("Returns", "odd:Returns").start(RunRequest("tried", steps=1)).outcome()
    assert outcome.exit == 0
    pids = [pad.servers.base().pid, pad.subject("Returns", "odd:Returns").server.pid]
    assert all(map(psutil.pid_exists, pids))
    pad.close()
    pad.close()
    assert until(lambda: not any(map(psutil.pid_exists, pids)))
    assert not pad.servers.folder.exists()


def test_only_the_servers_used_last_stay_warm(tmp_path):
    (tmp_path / "odd.py").write_text(PROGRAMS)
    pad = Launchpad(tmp_path, tmp_path / "pad", [str(tmp_path)], 30.0)
    pad.servers.folder.mkdir()
    try:
        names = ["Returns", "Hangs", "Leaves", "Daemon", "Closes", "Listens", "FillsDisk"]
        assert len(names) == MOST_WARM + 1
        subjects = [pad.subject(name, f"odd:{name}") for name in names]
        pids = [subject.server.pid for subject in subjects]
        assert until(lambda: not psutil.pid_exists(pids[0]))
        assert all(map(psutil.pid_exists, pids[1:]))
        assert subjects[0].start(RunRequest("tried", steps=1)).outcome().exit == 0  # in a new one
    finally:
        pad.close()


# --- pytest itself is interrupted

ENDLESS = """
import os, subprocess, time
import pytest_trainguard as trainguard
from pathlib import Path

class Endless(trainguard.Trainer):
    def train(self, run):
        import torch
        subprocess.Popen(os.environ["TRAINGUARD_SLEEP"].split(), start_new_session=True)
        (Path(__file__).parent / "ready").touch()
        while True:
            time.sleep(0.1)
"""


def started_in(folder):
    """Every process that has to do with a project: by its environment, its folder, or what it was left with."""
    found = []
    for process in psutil.process_iter():
        try:
            marked = process.environ().get("TRAINGUARD_TEST") == str(folder)
        except psutil.Error:
            continue
        if marked:
            found.append(process)
    return found


def serving_in(folder):
    """Whether the base server is there; pytest starts other processes, too, which come and go."""
    for process in started_in(folder):
        with contextlib.suppress(psutil.Error):
            if "pytest_trainguard.launch.server" in process.cmdline():
                return True
    return False


@pytest.mark.parametrize(
    ("moment", "signum"),
    [
        ("importing torch", signal.SIGINT),
        ("stuck in importing torch", signal.SIGKILL),
        ("importing the trainer", signal.SIGKILL),
        ("running", signal.SIGINT),
        ("running", signal.SIGTERM),
        ("running", signal.SIGKILL),
    ],
)
def test_nothing_is_left_of_an_interrupted_pytest(tmp_path, signum, moment):
    project = Project(tmp_path / "project", ["preflight:Endless"], warm=False, toml='trainguard_writable = ["."]\n')
    stuck = "\nopen(__file__ + '.loading', 'w').close()\nimport time\ntime.sleep(1000)\n"
    project.write("preflight.py", ENDLESS + (stuck if "trainer" in moment else ""))
    if "stuck" in moment:
        project.write("torch.py", stuck)  # found before the library
    env = {"TRAINGUARD_TEST": str(tmp_path), "TRAINGUARD_SLEEP": SLEEP, "TMPDIR": str(tmp_path)}
    process = project.start("-m", "preflight", "--edge-case=41", env=env)
    sign = {
        "importing torch": lambda: serving_in(tmp_path),
        "stuck in importing torch": (project.folder / "torch.py.loading").exists,
        "importing the trainer": (project.folder / "preflight.py.loading").exists,
        "running": (project.folder / "ready").exists,
    }[moment]
    try:
        assert until(sign, 60)
        assert serving_in(tmp_path)
        process.send_signal(signum)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()  # or else, where this fails, what it started stands in other tests' way
    told = signum in (signal.SIGINT, signal.SIGTERM)
    assert process.returncode == (2 if told else -signum)
    assert until(lambda: started_in(tmp_path) == [], 8), started_in(tmp_path)
    assert asleep() == []
    if told:
        assert "NO-GO: " in output
        assert "interrupted before the end" in output
    assert not [path for path in tmp_path.rglob("*") if path.is_socket()]
    if told:
        assert not list(tmp_path.rglob("recording-*"))


def test_no_socket_is_open_to_others(start):
    started = start("Hangs")
    family = [psutil.Process(started.pid), *psutil.Process(started.pid).parents()[:2]]
    assert all(process.net_connections("inet") == [] for process in family)
    listening = subprocess.run(["cat", "/proc/net/unix"], capture_output=True, text=True).stdout
    assert "trainguard" not in listening
    started.kill()
    assert os.getpid() not in [process.pid for process in family]
