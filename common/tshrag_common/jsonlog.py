"""stdlib logging as JSON lines on stderr: what happened, and its facts.

A message is a constant phrase; what varies is in ``extra``. Run, job and fence come from a
context variable, so that whoever logs inside an attempt need not name them.
"""

import contextvars
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import msgspec

_FACTS: contextvars.ContextVar[Mapping[str, object]] = contextvars.ContextVar("facts")
_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


@contextmanager
def facts(**more: object) -> Iterator[None]:
    """Add `more` to every line that is logged inside, tasks started there too."""
    token = _FACTS.set({**_FACTS.get({}), **more})
    try:
        yield
    finally:
        _FACTS.reset(token)


def facts_of(record: logging.LogRecord) -> dict[str, object]:
    """Return what the record tells beside its phrase."""
    own = {name: value for name, value in record.__dict__.items() if name not in _PLAIN}
    return {**_FACTS.get({}), **own}


class JsonFormatter(logging.Formatter):
    """One line of JSON a record; what JSON cannot hold is told as text."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": _instant(record.created),
            "level": record.levelname.lower(),
            "what": record.getMessage(),
            "room": record.name,
            **facts_of(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=repr).decode()


class TextFormatter(logging.Formatter):
    """One line for people."""

    def format(self, record: logging.LogRecord) -> str:
        facts = " ".join(f"{name}={value}" for name, value in facts_of(record).items())
        line = f"{_instant(record.created)} {record.levelname:7} {record.getMessage()} {facts}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line.rstrip()


def set_up_logging(
    level: Literal["debug", "info", "warning", "error"], form: Literal["json", "text"]
) -> None:
    """Have everything logged to stderr from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("nats", "asyncio", "asyncssh"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _instant(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1e6):06d}Z"
