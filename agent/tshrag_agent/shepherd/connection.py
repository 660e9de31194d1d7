"""The socket of the shepherd and one agent's end of it; nothing here ever waits."""

import contextlib
import os
import socket
import struct

from tshrag_agent.shepherd import protocol
from tshrag_agent.shepherd.protocol import BadFrame, Message

_RECEIVE_BYTES = 64 * 1024  # more would be mapped and unmapped each time
_MOST_UNSENT = 64 * 1024 * 1024  # a frozen agent; it asks again when it is back


def listen(folder: str) -> socket.socket:
    """Open the socket in `folder`, for our user alone; the caller holds the lock."""
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)
    try:
        address = protocol.socket_address(folder, folder_fd)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(address)  # of a shepherd that was killed
        listener.bind(address)
    finally:
        os.umask(before)
        os.close(folder_fd)
    listener.listen(64)
    return listener


def is_served(folder: str) -> bool:
    """Tell whether a shepherd answers in `folder`."""
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            return probe.connect_ex(protocol.socket_address(folder, folder_fd)) == 0
    finally:
        os.close(folder_fd)


class Connection:
    """One connected agent."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._frames = protocol.Frames()
        self._unsent = bytearray()
        self.fd = sock.fileno()
        self.is_open = True
        self.waits_for_room = False  # what the poll of the loop knows of `is_stuck`
        self.answers: list[tuple[int, Message]] = []

    @property
    def is_stuck(self) -> bool:
        """Tell whether something waits until the agent reads on."""
        return bool(self._unsent)

    def note_answer(self, number: int, answer: Message) -> None:
        """Keep an answer until the next `send`."""
        self.answers.append((number, answer))

    def receive(self) -> list[Message]:
        """Return the messages that have come; a closed or senseless connection is closed."""
        try:
            data = self._sock.recv(_RECEIVE_BYTES)
            if data:
                return list(self._frames.feed(data))
        except BlockingIOError:
            return []
        except (OSError, BadFrame):
            pass
        self.close()
        return []

    def send(self, message: Message) -> None:
        self._unsent += protocol.frame(message)
        self.flush()
        if len(self._unsent) > _MOST_UNSENT:
            self.close()

    def flush(self) -> None:
        """Send as much as the socket takes."""
        try:
            while self.is_open and self._unsent:
                sent = self._sock.send(self._unsent, socket.MSG_NOSIGNAL)
                del self._unsent[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self._sock.close()


def accept(listener: socket.socket) -> Connection | None:
    """Accept one agent; somebody else's process is turned away."""
    try:
        sock, _ = listener.accept()
    except OSError:
        return None
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    if uid not in (os.getuid(), 0):
        sock.close()
        return None
    return Connection(sock)
