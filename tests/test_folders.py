"""Folders that programs left: pipes, sockets, files that may not be read, sparse ones, folders without end."""

import os
import resource
import socket

import pytest

from pytest_trainguard import folders
from pytest_trainguard.subject.snapshot import snapshot
from tests.projects import ADOPTED, LOOP, Project

HUGE = 10 << 30  # bytes that a sparse file says it has


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "output"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "note.txt").write_text("kept")
    (folder / "latest").symlink_to("inner")
    return folder


def make_odd_files(folder):
    """Two that hang who opens them, a socket, and one that may not be read."""
    os.mkfifo(folder / "pipe")
    os.mkfifo(folder / "weights.pt")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(folder)  # its name may have a hundred characters only
        listening.bind("socket")
        os.chdir(here)
    (folder / "secret").write_text("nobody's")
    (folder / "secret").chmod(0)


def make_sparse(path, *pieces):
    with path.open("wb") as file:
        for place, content in pieces:
            file.seek(place)
            file.write(content)
        file.truncate(HUGE)


def make_deep(folder, levels):
    """Folders in folders, deeper than a path can name."""
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folder)
        for _ in range(levels):
            os.mkdir("d")
            os.chdir("d")
        with open("bottom", "w") as file:
            file.write("deep down")
    finally:
        os.fchdir(here)
        os.close(here)


def as_nobody(monkeypatch):
    """File permissions as they apply to an ordinary user, also where the tests run as root."""

    def refuse(path, flags, *args, **kwargs):
        if os.path.basename(str(path)) == "secret" and flags & os.O_ACCMODE == os.O_RDONLY:
            raise PermissionError(13, "Permission denied", path)
        return opened(path, flags, *args, **kwargs)

    opened = os.open
    monkeypatch.setattr(os, "open", refuse)


def test_odd_files_neither_hang_nor_crash(folder, tmp_path, monkeypatch):
    make_odd_files(folder)
    as_nobody(monkeypatch)
    before = snapshot(folder)
    assert sorted(before) == ["inner/", "inner/note.txt", "latest/", "secret"]
    assert before["secret"][0] == len("nobody's")
    copy = folders.copy(folder, tmp_path / "copy")
    assert sorted(os.listdir(copy)) == ["inner", "latest", "pipe", "secret", "weights.pt"]
    assert (copy / "inner" / "note.txt").read_text() == "kept"
    assert ((copy / "secret").stat().st_size, (copy / "secret").stat().st_mode & 0o777) == (0, 0)
    assert {name: told for name, told in snapshot(copy).items() if name != "secret"} == {
        name: told for name, told in before.items() if name != "secret"
    }
    folders.remove(copy)
    assert not copy.exists()


def test_a_link_that_leads_to_itself_is_told_like_any_other(folder):
    (folder / "round").symlink_to("round")
    assert snapshot(folder)["round"] == (0, "-> round")


def test_a_file_that_may_not_be_read_is_told_by_its_time(folder, monkeypatch):
    (folder / "secret").write_text("one")
    as_nobody(monkeypatch)
    before = snapshot(folder)
    os.utime(folder / "secret", (1, 1))
    assert snapshot(folder)["secret"] != before["secret"]


def test_a_sparse_file_is_read_and_copied_without_its_holes(folder, tmp_path):
    make_sparse(folder / "huge", (5, b"begin"), (HUGE // 2, b"middle"), (HUGE - 3, b"end"))
    make_sparse(folder / "other", (5, b"begin"), (HUGE // 2, b"muddle"), (HUGE - 3, b"end"))
    file = folders.open_file(str(folder / "huge"))
    try:
        blocks = list(folders.read_blocks(file))
    finally:
        os.close(file)
    assert [place for place, _ in blocks] == [0, HUGE // 2, HUGE - folders.BLOCK]
    told = snapshot(folder)
    assert told["huge"][0] == HUGE
    assert told["huge"] != told["other"]
    copy = folders.copy(folder, tmp_path / "copy")
    assert snapshot(copy) == told
    assert (copy / "huge").stat().st_blocks * 512 < 16 << 20


def test_holes_are_zeros(folder):
    make_sparse(folder / "holes", (3 << 20, b"x"))
    with (folder / "holes").open("r+b") as file:
        file.truncate(8 << 20)
    (folder / "zeros").write_bytes(bytes(3 << 20) + b"x" + bytes((5 << 20) - 1))
    told = snapshot(folder)
    assert told["holes"] == told["zeros"]


def test_a_large_file_is_hashed_in_pieces(folder):
    size = 1 << 30
    with (folder / "large").open("wb") as file:
        for place in range(0, size, 64 << 20):
            file.seek(place)
            file.write(b"x")
        file.truncate(size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    snapshot(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


def test_folders_without_end(folder, tmp_path):
    make_deep(folder, 2500)
    assert len(snapshot(folder)) == folders.LEVELS + 3
    copy = folders.copy(folder, tmp_path / "copy")
    folders.remove(copy)
    folders.remove(folder)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_may_not_be_written_to_is_removed(folder):
    (folder / "inner").chmod(0o555)
    folders.remove(folder)
    assert not folder.exists()


def test_a_case_keeps_no_large_file(tmp_path):
    """Case 10 makes one, in a folder that pytest keeps for three sessions."""
    project = Project(tmp_path / "project", ["preflight:Classifier"])
    project.write("program.py", LOOP)
    project.write("preflight.py", ADOPTED)
    result = project.pytest("-m", "preflight", "--edge-case=10")
    assert result.case("Classifier", 10)["verdict"] in ("passed", "advice", "failed"), result.output
    kept = [path for path in (project.folder / "tmp").rglob("*") if path.is_file() and path.stat().st_size > 4 << 20]
    assert kept == []
