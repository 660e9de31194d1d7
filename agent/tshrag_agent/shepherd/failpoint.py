"""The failpoints of the shepherd, which has nothing but the standard library.

The variables and their meaning are those of ``tshrag_common/failpoints.py``, which also knows these
names; here a process dies or stops at its n-th passage, or sleeps at that and every later one.
"""

import os
import signal
import time

_PASSED: dict[str, int] = {}


def _wanted() -> dict[str, tuple[int, str]]:
    if os.environ.get("TSHRAG_TEST_MODE") != "1":
        return {}
    found: dict[str, tuple[int, str]] = {}
    for text in os.environ.get("TSHRAG_FAILPOINT", "").split(","):
        name, *rest = text.split(":")
        first = int(rest.pop(0)) if rest and rest[0].isdigit() else 1
        found[name] = (first, rest[0] if rest else "panic")
    return found


_WANTED = _wanted()


def failpoint(name: str) -> None:
    """Do what a test wants here; nothing in production."""
    if name not in _WANTED:
        return
    first, act = _WANTED[name]
    _PASSED[name] = _PASSED.get(name, 0) + 1
    if act.startswith("sleep=") and _PASSED[name] >= first:
        time.sleep(int(act[6:]) / 1000)
    elif _PASSED[name] == first:
        os.kill(os.getpid(), signal.SIGSTOP if act == "stop" else signal.SIGKILL)
