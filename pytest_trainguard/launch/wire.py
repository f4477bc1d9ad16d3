"""Moving bytes between pytest, the warm server and the supervisors: a length before each message, on a socket pair.

What the bytes say is in `protocol`.
"""

from __future__ import annotations

import socket
import struct

_LENGTH = struct.Struct("!Q")


def send(sock: socket.socket, body: bytes, fds: tuple[int, ...] = ()) -> None:
    """Send one message; file descriptors travel beside its length.

    Raises:
        OSError: the other end is gone.
    """
    head = _LENGTH.pack(len(body))
    if fds:
        socket.send_fds(sock, [head], list(fds))
        sock.sendall(body)
    else:
        sock.sendall(head + body)


def receive(sock: socket.socket) -> tuple[bytes, list[int]] | None:
    """The next message and the file descriptors that came with it; None where the other end is closed.

    Raises:
        TimeoutError: the socket has a time limit and nothing came in time.
    """
    try:
        head, fds, _, _ = socket.recv_fds(sock, _LENGTH.size, 4)
        if not head:
            return None
        head += _receive_exactly(sock, _LENGTH.size - len(head))
        return _receive_exactly(sock, _LENGTH.unpack(head)[0]), fds
    except (ConnectionError, EOFError):
        return None


def _receive_exactly(sock: socket.socket, size: int) -> bytes:
    """So many bytes.

    Raises:
        EOFError: the other end is closed before they are all there.
    """
    parts = []
    while size:
        part = sock.recv(min(size, 1 << 16))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
