"""Messages between pytest, the warm server and the supervisors: JSON with a length before it, over a socket pair.

JSON and not pickle: what comes back passes through processes that a hostile trainer may have touched.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

_LENGTH = struct.Struct("!Q")
Message = dict[str, Any]


def send(sock: socket.socket, message: Message, fds: tuple[int, ...] = ()) -> None:
    """Send one message; file descriptors travel beside its length.

    Raises:
        OSError: the other end is gone.
    """
    body = json.dumps(message).encode()
    head = _LENGTH.pack(len(body))
    if fds:
        socket.send_fds(sock, [head], list(fds))
        sock.sendall(body)
    else:
        sock.sendall(head + body)


def receive(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """The next message and the file descriptors that came with it; None where the other end is closed.

    Raises:
        TimeoutError: the socket has a time limit and nothing came in time.
    """
    try:
        head, fds, _, _ = socket.recv_fds(sock, _LENGTH.size, 4)
        while head and len(head) < _LENGTH.size:
            more = sock.recv(_LENGTH.size - len(head))
            if not more:
                return None
            head += more
        if not head:
            return None
        left = _LENGTH.unpack(head)[0]
        parts = []
        while left:
            part = sock.recv(min(left, 1 << 16))
            if not part:
                return None
            parts.append(part)
            left -= len(part)
    except ConnectionError:
        return None
    return json.loads(b"".join(parts)), fds
