"""What runs out of the harness's own room is told of the harness: disk space, memory."""

import pytest

from pytest_trainguard import faults
from pytest_trainguard.launch.protocol import RunRequest
from pytest_trainguard.subject import room
from pytest_trainguard.subject.launchpad import Launchpad
from pytest_trainguard.verdicts.errors import CannotJudge
from tests.projects import ADOPTED, Project

FULL = "OSError: [Errno 28] No space left on device: 'checkpoint-2.pt'"
DISK, MEMORY = "the harness has no room on", "the harness has no memory left, of"


@pytest.fixture
def free(monkeypatch):
    """Sets how much is free, everywhere."""

    def set_free(size):
        monkeypatch.setattr(room, "find_free", lambda folder: size)

    set_free(10 << 30)
    return set_free


@pytest.fixture
def kills(monkeypatch):
    monkeypatch.setattr(room, "count_oom_kills", lambda: 3)


def write_system(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_full_disk_is_the_harnesss(tmp_path, free, kills):
    told = room.find_shortage(tmp_path, 1, FULL, 3)
    assert told.startswith(DISK)
    assert "set --basetemp or TMPDIR to a disk with 512 MiB" in told
    assert room.find_shortage(tmp_path / "of" / "another run", 1, FULL, 3) == told, "one cause, one line"
    assert room.find_shortage(tmp_path, 1, FULL, 3, small_disk=True) is None, "the case asked for that"
    assert room.find_shortage(tmp_path, 0, f"warning: {FULL}, tried again", 3) is None
    assert room.find_shortage(tmp_path, 1, "OSError: [Errno 5] Input/output error", 3) is None
    free(0)
    assert room.find_shortage(tmp_path, 0, "", 3) == told, "what it wrote last may not be there"


def test_shared_memory_that_is_full_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "find_free", lambda folder: 0 if folder == room.SHARED_MEMORY else 10 << 30)
    if not room.SHARED_MEMORY.is_mount():
        pytest.skip("no shared memory here")
    assert "/dev/shm" in room.find_shortage(tmp_path, 1, FULL, 3)


def test_a_process_that_the_kernel_ended_for_memory(tmp_path, free, kills):
    told = room.find_shortage(tmp_path, -9, "", 2)
    assert told.startswith(MEMORY)
    assert "give the container 1.0 GiB" in told
    worker = "RuntimeError: DataLoader worker (pid 7) is killed by signal: Killed."
    assert room.find_shortage(tmp_path, 1, worker, 2) == told
    assert room.find_shortage(tmp_path, -9, "", 3) is None, "nobody was ended since it was started"
    assert room.find_shortage(tmp_path, -9, "", 2, killed=True) is None, "the case killed it"
    assert room.find_shortage(tmp_path, -11, "", 2) is None


SYSTEMS = {
    "version 2, in a container": {
        "proc/self/cgroup": "0::/outside/of/it\n",
        "sys/fs/cgroup/memory.events": "low 0\nmax 4\noom 1\noom_kill 7\n",
        "sys/fs/cgroup/memory.max": f"{500 << 20}\n",
    },
    "version 2, on the host": {
        "proc/self/cgroup": "0::/user.slice\n",
        "sys/fs/cgroup/user.slice/memory.events": "oom_kill 7\noom_group_kill 0\n",
        "sys/fs/cgroup/user.slice/memory.max": f"{500 << 20}\n",
    },
    "version 1": {
        "proc/self/cgroup": "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n0::/\n",
        "sys/fs/cgroup/memory/docker/x/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n",
        "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": f"{500 << 20}\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    },
}


@pytest.mark.parametrize("files", SYSTEMS.values(), ids=list(SYSTEMS))
def test_control_groups_are_read(tmp_path, files):
    root = write_system(tmp_path, {"proc/meminfo": "MemTotal: 24000000 kB\n", "proc/vmstat": "oom_kill 9\n", **files})
    assert room.count_oom_kills(root) == 7
    assert "left, of 500 MiB (memory." in room.tell_out_of_memory(root)


def test_without_control_groups_the_machine_counts(tmp_path):
    unlimited = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}
    root = write_system(
        tmp_path, {"proc/meminfo": "MemTotal: 4194304 kB\n", "proc/vmstat": "oom_kill 9\n", **unlimited}
    )
    assert room.count_oom_kills(root) == 9
    assert "left, of 4.0 GiB (/proc/meminfo)" in room.tell_out_of_memory(root)
    assert room.count_oom_kills(tmp_path / "elsewhere") == 0
    assert "(unknown)" in room.tell_out_of_memory(tmp_path / "elsewhere")


PROGRAM = """
import errno, os
from pytest_trainguard import Trainer


class Writes(Trainer):
    def train(self, run):
        import signal, torch
        if "killed" in run.settings:
            model = torch.nn.Linear(1, 1)
            model(torch.ones(1, 1)).sum().backward()
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "checkpoint-2.pt")
"""


@pytest.fixture
def subject(tmp_path):
    (tmp_path / "writes.py").write_text(PROGRAM)
    (tmp_path / "base").mkdir()
    pad = Launchpad(tmp_path, tmp_path / "base", [str(tmp_path)], 30.0)
    yield pad.subject("Writes", "writes:Writes")
    pad.close()


def test_a_run_that_met_a_full_disk_says_nothing_of_its_trainer(subject, free):
    with pytest.raises(CannotJudge, match=DISK):
        subject.start(RunRequest("trained")).outcome()
    assert subject.start(RunRequest("trained", small_disk=8 << 20)).outcome().exit == 1
    free(room.LEAST_FREE - 1)
    with pytest.raises(CannotJudge, match=DISK):
        subject.start(RunRequest("trained"))


def test_a_fault_that_kills_nothing_is_no_reason_for_its_end(subject, monkeypatch):
    monkeypatch.setattr(room, "count_oom_kills", iter(range(100)).__next__)  # one more each time that it is looked at
    for fault in (None, faults.raises(ValueError, "optimizer", 1), faults.fill_disk(1)):
        with pytest.raises(CannotJudge, match=MEMORY):
            subject.start(RunRequest("trained", settings={"killed": 1}, fault=fault)).outcome()
    killed = subject.start(RunRequest("sent SIGKILL", settings={"killed": 1}, fault=faults.kill(1))).outcome()
    assert (killed.exit, killed.recording.fault_fired) == (-9, True)


OWN = """
import errno, os
from pytest_trainguard import edge_case


@edge_case("copies", number=1001, title="copies", category="training", verdict="survives", severity="wastes",
           brought_about="a copy that does not fit", expects="nothing")
def test_copies(guard):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "copy")
"""


def test_what_the_harness_itself_could_not_write_is_told_so(tmp_path):
    project = Project(tmp_path / "project", ["preflight:Classifier"])
    project.write("preflight.py", ADOPTED)
    project.write("test_own.py", OWN)
    result = project.pytest("-m", "preflight", "--edge-case", "1001")
    assert (result.code, result.verdicts("Classifier")) == (1, {1001: "error"})
    assert result.case("Classifier", 1001)["reason"].startswith(DISK)
