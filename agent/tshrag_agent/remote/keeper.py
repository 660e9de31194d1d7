"""Keeps one process: starts it, stores its output up to a bound, notes how it ended.

A program of its own (``python keeper.py FOLDER``), standard library only, in a session of its own:
the agent may end and come back, the process goes on. What is asked comes on stdin, since it may be
secret; ``ask.json`` beside it is what others may see. What became of it stands in ``state.json``;
whoever follows has a FIFO there, and is woken through it.
SIGUSR1: no more comes on stdin.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

OUTPUT_BYTES = 256 << 20
"""How much of each stream is stored; the rest is read, dropped and counted."""
_READ_BYTES = 1 << 16
_LINGER_S = 2.0
_POLL_S = 0.2


def main(folder: str) -> None:
    ask = json.load(sys.stdin)
    if os.fork():  # the agent waits for this one; its child is nobody's to wait for
        os._exit(0)
    os.setsid()
    os.chdir(folder)
    keep(ask)


def keep(ask: dict[str, Any]) -> None:
    """Be with the process until it has ended, and its output is stored."""
    state: dict[str, Any] = {"keeper": os.getpid(), "born": born(os.getpid())}
    held = [os.open("stdin", os.O_RDWR)] if ask["stdin"] else []

    def close_stdin(*_: object) -> None:
        while held:
            os.close(held.pop())

    signal.signal(signal.SIGUSR1, close_stdin)
    source = os.open("stdin" if ask["stdin"] else os.devnull, os.O_RDONLY)
    try:
        process = subprocess.Popen(
            ask["argv"],
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ask["cwd"],
            env=ask["env"],
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        _note(state | {"error": str(error), "ended_at": _now()})
        return
    os.close(source)
    state |= {"pid": process.pid}
    _note(state)
    cut = _store(process)
    code = process.wait()
    _note(state | {"code": code, "cut_bytes": cut, "ended_at": _now()})


def _store(process: "subprocess.Popen[bytes]") -> int:
    """Copy both streams into files until they end, or a moment behind the process."""
    selector = selectors.DefaultSelector()
    with contextlib.ExitStack() as stack:
        for name, pipe in (("stdout", process.stdout), ("stderr", process.stderr)):
            target = stack.enter_context(Path(name).open("ab", buffering=0))
            selector.register(pipe, selectors.EVENT_READ, target)  # type: ignore[arg-type]  # both are pipes
        return _copied(process, selector)


def _copied(process: "subprocess.Popen[bytes]", selector: selectors.BaseSelector) -> int:
    cut, ended_at = 0, 0.0
    while selector.get_map():
        if process.poll() is not None:
            ended_at = ended_at or time.monotonic()
            if time.monotonic() - ended_at > _LINGER_S:  # its children hold on to the pipes
                break
        for key, _ in selector.select(_POLL_S):
            data = os.read(key.fd, _READ_BYTES)
            if not data:
                selector.unregister(key.fileobj)
                continue
            cut += _put(key.data, data)
            _wake()
    return cut


def _put(target: IO[bytes], data: bytes) -> int:
    """Store what still has room; return how much has not."""
    room = max(0, OUTPUT_BYTES - target.tell())
    try:
        target.write(data[:room])
    except OSError:  # a full disk: the process goes on, its output does not
        room = 0
    return max(0, len(data) - room)


def _note(state: dict[str, Any]) -> None:
    fresh = Path("state.new")
    fresh.write_text(json.dumps(state))
    fresh.replace("state.json")
    _wake()


def _wake() -> None:
    """Let those who follow look."""
    for follower in Path().glob("follow.*"):
        try:
            fd = os.open(follower, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # whoever followed has died
            follower.unlink(missing_ok=True)
            continue
        with contextlib.suppress(BlockingIOError):  # it is full: he will look anyway
            os.write(fd, b".")
        os.close(fd)


def _now() -> int:
    return time.time_ns() // 1000


def born(pid: int) -> str:
    """Return when a process began, as the kernel counts: a number of it may come again."""
    said = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    return said.rpartition(")")[2].split()[19]


if __name__ == "__main__":
    main(sys.argv[1])
