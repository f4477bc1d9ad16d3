"""What Linux offers and Python's standard library does not name: death signals, capabilities, mounts.

Everything here answers False (or does nothing) where the system has no such thing, so that callers can fall back.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import re
import resource
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER = 1, 24, 36
_CAPABILITY_VERSION_3, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 0x20080522, 1, 2
_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
_M_ARENA_MAX = -8
_MAP_NORESERVE = 0x4000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 1 << 18
_MNT_DETACH = 2
_HUGE_PAGE, _MADV_COLLAPSE = 2 << 20, 25
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def become_subreaper() -> bool:
    """Orphans among this process's descendants become its children, so that none escapes (prctl(2))."""
    libc = _libc()
    return libc is not None and libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def is_childless() -> bool:
    """Whether this process has no child, alive or defunct (waitid(2)): so a subreaper has no descendant either."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except AttributeError:
        return False
    except ChildProcessError:
        return True
    return False


def children_of(pid: int) -> list[int]:
    """The processes that a process started, whichever of its threads did; none where the system does not tell."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, file.read_text().split())
        except OSError:  # a thread that has just ended
            continue
    return found


def may_die_of(pid: int, signum: int) -> bool:
    """Whether a process lives and does not ignore a signal (proc_pid_status(5)); False where nobody tells."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    state, ignored = re.search(r"^State:\s*(\w)", status, re.M), re.search(r"^SigIgn:\s*(\w+)", status, re.M)
    if state is None or ignored is None or state[1] in "ZX":
        return False
    return not int(ignored[1], 16) >> (signum - 1) & 1


def die_with_parent(signum: int) -> None:
    """Have the kernel send `signum` to this process when its parent ends, however that ends."""
    libc = _libc()
    if libc is not None:
        libc.prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)


def open_process(pid: int) -> int | None:
    """A descriptor that becomes readable as the process ends (pidfd_open(2)); None where the system has none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def join_pages() -> None:
    """Have this process's memory stand in huge pages, as far as it can (madvise(2), MADV_COLLAPSE, Linux 6.1).

    To fork a process and to end it again takes a step for each page that it has: with torch and transformers loaded, a
    third of the time for 2 MiB pages that it takes for 4 KiB ones. A child that writes copies 4 KiB as before.
    """
    libc = _libc()
    if libc is None:
        return
    for begin, end in _anonymous():
        first, behind = -(-begin // _HUGE_PAGE) * _HUGE_PAGE, end // _HUGE_PAGE * _HUGE_PAGE
        if first < behind:
            libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(behind - first), _MADV_COLLAPSE)


def _anonymous() -> list[tuple[int, int]]:
    """Where memory stands that this process writes and that is of no file (proc_pid_maps(5)), stacks left out."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        where, rights, _, _, inode, *name = line.split()
        if rights == "rw-p" and inode == "0" and name in ([], ["[heap]"]):
            begin, end = where.split("-")
            found.append((int(begin, 16), int(end, 16)))
    return found


def one_arena() -> None:
    """Have C's allocator keep to one arena (mallopt(3)), before memory is limited.

    Further ones are made where two threads happen to meet, on one day and not on the next, and each keeps what was
    freed in it.
    """
    mallopt = getattr(_libc(), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def limit_memory(extra: int) -> None:
    """Have the kernel refuse this process, and each that it starts, more than `extra` bytes over what it has taken.

    What counts is memory of its own (RLIMIT_DATA: private and writable, as objects and tensors are). A file that is
    mapped to be read does not, nor does shared memory. Where the system does not count so (Linux before 4.7, others
    than Linux) it is address space (RLIMIT_AS), mapped files included.
    """
    own = _taken("VmData")
    if own is not None and _refuses_beyond(resource.RLIMIT_DATA, own + extra):
        return
    _set_limit(resource.RLIMIT_AS, (_taken("VmSize") or 0) + extra)


def _taken(what: str) -> int | None:
    """Bytes of one kind that this process has taken, by its name in proc_pid_status(5); None where none are told."""
    try:
        told = re.search(rf"^{what}:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    except OSError:
        return None
    return int(told[1]) << 10 if told else None


def _refuses_beyond(kind: int, limit: int) -> bool:
    """Set a limit; whether it holds for memory that is asked of the system without a file."""
    _set_limit(kind, limit)
    try:
        mmap.mmap(-1, limit, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE).close()
    except OSError:
        return True
    return False


def _set_limit(kind: int, limit: int) -> None:
    """Set a limit, or leave the one that is set already where that is lower."""
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(kind, (limit, limit))


class _Mallinfo2(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
                     "keepcost")
    )  # fmt: skip


@functools.cache
def _mallinfo2() -> Any:
    function = getattr(_libc(), "mallinfo2", None)  # glibc 2.33
    if function is not None:
        function.restype = _Mallinfo2
    return function


def heap() -> int:
    """Bytes that this process has in use from C's allocator, tensors on the CPU among them: to the byte (mallinfo2(3)).

    Resident memory says less: it moves in pages, and is not given back at once. 0 where the C library does not tell.
    """
    function = _mallinfo2()
    if function is None:
        return 0
    told = function()
    return int(told.uordblks + told.hblkhd)


def obey_permissions() -> bool:
    """Have file permissions apply to this process and all that it starts, as to an ordinary user.

    Root gives up the capabilities that let it pass them by (capset(2), and from the bounding set, prctl(2)); it stays
    the owner of its files. Nobody else has them.

    Returns:
        False where root cannot be made to obey.
    """
    if os.geteuid() != 0:
        return True
    libc = _libc()
    if libc is None:
        return False
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: of capabilities 0 to 31, then of the rest
    if libc.capget(header, sets) != 0:
        return False
    for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
        for place in range(3):
            sets[place] &= ~(1 << capability) & 0xFFFFFFFF
    return bool(libc.capset(header, sets) == 0)


def give_up_rights() -> None:
    """Have this process be an ordinary one again where it has rights in a user namespace only (capset(2))."""
    libc = _libc()
    if libc is not None and os.geteuid() != 0:
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        libc.capset(header, (ctypes.c_uint32 * 6)())


def enter_namespaces(*, network: bool) -> bool:
    """Enter a mount namespace and, with `network`, a network namespace of this process's own.

    As root or, where the machine allows that, in an unprivileged user namespace, in which this user keeps its number.
    The process must have one thread.

    Returns:
        False where that cannot be had; the process is as it was.
    """
    return _unshare(_CLONE_NEWNS | (_CLONE_NEWNET if network else 0)) and _keep_mounts_private()


def enter_mount_namespace() -> bool:
    """Enter a mount namespace of this process's own, from one that was entered before."""
    return _unshare(_CLONE_NEWNS) and _keep_mounts_private()


def enter_network_namespace() -> bool:
    """Enter a network namespace of this process's own, with nothing in it."""
    return _unshare(_CLONE_NEWNET)


def _unshare(kinds: int) -> bool:
    libc = _libc()
    if libc is None:
        return False
    if libc.unshare(kinds) == 0:
        return True
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(kinds | _CLONE_NEWUSER) != 0:
        return False
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    except OSError:
        return False
    return True


def _keep_mounts_private() -> bool:
    libc = _libc()
    return libc is not None and libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) == 0


def raise_loopback() -> None:
    """Have the loopback interface of this network namespace work (netdevice(7)).

    Raises:
        OSError: it cannot be had.
    """
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH22x", b"lo", 0)
        flags = struct.unpack_from("H", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | _IFF_UP))


def _mount(source: str, target: Path, kind: str | None, flags: int, options: str = "") -> None:
    libc = _libc()
    named = None if kind is None else kind.encode()
    if libc is None or libc.mount(os.fsencode(source), os.fsencode(target), named, flags, os.fsencode(options)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(target))


def bind(source: Path, target: Path) -> None:
    """Have a file or folder, with all that is mounted below it, be seen at another place. Raises OSError."""
    _mount(str(source), target, None, _MS_BIND | _MS_REC)


def mount_tmpfs(folder: Path) -> None:
    """Mount a file system in memory on a folder. Raises OSError."""
    _mount("none", folder, "tmpfs", 0, "mode=0700")


def mount_overlay(folder: Path, lower: Sequence[Path], upper: Path, work: Path) -> None:
    """Mount on a folder what other folders hold, the first on top; what is written there goes to `upper`.

    Raises:
        OSError: it cannot be had.
    """
    layers = ":".join(_escaped(path, ":") for path in lower)
    options = f"lowerdir={layers},upperdir={_escaped(upper)},workdir={_escaped(work)}"
    try:
        _mount("overlay", folder, "overlay", 0, options)
    except OSError:  # in a user namespace it may keep its notes in attributes of the user's only
        _mount("overlay", folder, "overlay", 0, f"{options},userxattr")


def _escaped(path: Path, also: str = "") -> str:
    return re.sub(rf"([\\,{also}])", r"\\\1", str(path))


def unmount(folder: Path) -> None:
    """Take off what was mounted last on a folder, with all below it, in use or not; nothing where nothing was."""
    libc = _libc()
    if libc is not None:
        libc.umount2(os.fsencode(folder), _MNT_DETACH)


def mount_small_disk(folder: Path, size: int) -> bool:
    """Mount a real file system of `size` bytes on `folder`, seen by this process and its descendants only.

    It vanishes with the last process that sees it.

    Returns:
        False where this user may not mount; the caller then falls back to a file-size limit.
    """
    if not enter_mount_namespace():
        return False
    try:
        _mount("none", folder, "tmpfs", 0, f"size={size},mode=0700")
    except OSError:
        return False
    return True


def break_file(file: Path) -> bool:
    """Have the kernel answer every read of `file` with EIO, for this thread and what it starts; it can be opened still.

    /proc/self/mem is mounted over it: a file whose beginning is the first page of this process's memory, which is
    never there. So it looks empty, and only who reads from its beginning on (text, not an archive) meets the error.
    Only root may mount in a process that has threads.

    Returns:
        False where that cannot be done; the file is as it was.
    """
    libc = _libc()
    if libc is None or os.geteuid() != 0 or libc.unshare(_CLONE_NEWNS) != 0:
        return False
    if libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) != 0:
        return False
    return bool(libc.mount(b"/proc/self/mem", os.fsencode(file), None, _MS_BIND, None) == 0)
