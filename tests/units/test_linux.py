"""What Linux offers: broken files, children, the heap."""

import os
import subprocess
import sys

import pytest

from pytest_trainguard import linux


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root, to mount")
def test_a_broken_file_gives_the_kernels_own_error(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("{}\n")
    program = f"""
from pathlib import Path
from pytest_trainguard import linux
file = Path({str(file)!r})
if not linux.break_file(file):
    raise SystemExit("may not mount here")
try:
    file.read_bytes()
except OSError as error:
    raise SystemExit(error.errno)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 5 or "may not mount" in done.stderr  # EIO
    assert file.read_text() == "{}\n"  # nobody else sees it


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="the system does not tell")
def test_a_process_has_a_child_until_it_has_taken_note_of_its_end():
    program = """
import os
from pytest_trainguard import linux
told, (reader, writer) = [linux.is_childless()], os.pipe()
child = os.fork()
if not child:
    os.read(reader, 1)
    os._exit(0)
told.append(linux.is_childless())
os.write(writer, b"x")
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
told.append(linux.is_childless())
os.waitpid(child, 0)
print(told + [linux.is_childless()])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[True, False, False, True]\n", done.stderr


@pytest.mark.skipif(not linux.heap(), reason="the C library does not tell")
def test_the_heap_is_told_to_the_byte():
    before = linux.heap()
    held = bytearray(1 << 20)
    assert linux.heap() - before >= len(held)
    del held
    assert linux.heap() - before < 1 << 16
