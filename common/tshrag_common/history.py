"""What a process has done, as JSON lines for the checker of a test; nothing in production.

With ``TSHRAG_TEST_MODE=1`` and ``TSHRAG_HISTORY=folder`` every process appends to a file of its
own there. All processes of one machine share its monotonic clock, so that the order of lines of
different files is exact. ``docs/explanation/proving-it.md`` says what each line means.
"""

import hashlib
import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Mapping

TEST_MODE = "TSHRAG_TEST_MODE"
HISTORY = "TSHRAG_HISTORY"

Note = Callable[..., None]
"""``note(ev, job=, attempt=, dut=, fence=, epoch=, seq=, sha=, ...)``: write a line."""


def _nothing(_ev: str, **_facts: object) -> None:
    """Write nothing: no test is on."""


class Writer:
    """Appends lines; one write a line, so that a process may die between any two."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._descriptor = -1
        self._fixed = {"host": socket.gethostname(), "boot": secrets.token_hex(4)}
        self._actor = f"pid-{os.getpid()}"

    def be(self, actor: str) -> None:
        """Say who writes from now on."""
        self._actor = actor

    def __call__(self, ev: str, **facts: object) -> None:
        fixed = {"mono_ns": time.monotonic_ns(), **self._fixed, "actor": self._actor, "ev": ev}
        line = json.dumps({**fixed, **facts}, separators=(",", ":"), default=str)
        if self._descriptor < 0:
            path = f"{self._folder}/{self._fixed['boot']}-{os.getpid()}.jsonl"
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(path, flags, 0o644)
        os.write(self._descriptor, f"{line}\n".encode())


def writer(environment: Mapping[str, str]) -> Writer | None:
    """Return what writes the history; None in production."""
    folder = environment.get(HISTORY, "")
    return Writer(folder) if folder and environment.get(TEST_MODE) == "1" else None


class Escapes(logging.Handler):
    """Notes every error that is logged with its traceback: none of ours should be."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            kinds = [kind.__name__ for kind in type(error).__mro__]
            note("escaped", room=record.name, what=record.getMessage(), kinds=kinds, why=str(error))


def be(actor: str) -> None:
    """Say who this process is: controller, agent a1, client."""
    if _WRITER is not None:
        _WRITER.be(actor)
        logging.getLogger().addHandler(Escapes(logging.ERROR))


def digest_of(bodies: Iterable[bytes]) -> list[str]:
    """Return a short digest of each body."""
    return [hashlib.sha256(body).hexdigest()[:16] for body in bodies]


_WRITER = writer(os.environ)
IS_ON = _WRITER is not None
note: Note = _WRITER or _nothing
