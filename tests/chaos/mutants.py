"""Broken on purpose: processes of the product with one rule taken out, to see that it is noticed.

    python -m tests.chaos.mutants NAME[+NAME...] MODULE ARGUMENT...

What a virtual clock can show is tried in seconds by ``tests/simulation/mutations.py``; here are
the rules that only real kernels keep. Nothing of this is in the product.
"""

import base64
import runpy
import sys
from collections.abc import Callable, Container
from typing import NamedTuple

from tshrag_agent.attempts import host_link, steps
from tshrag_agent.attempts.host import HostLimits
from tshrag_agent.journal.store import Store
from tshrag_agent.reports.heartbeat import Pulse
from tshrag_agent.reports.logpump import LogPump
from tshrag_common import labkeys

_KILL_PARENT_ONLY = """
import contextlib, os, signal
from tshrag_agent.shepherd import attempt, cgroups, proctree
def begin_end(self, now, grace_s):
    self._state, self._kill_at, self._look_at = "ending", now, now
def look(self, now):
    self.is_over = self._main_end is not None
    with contextlib.suppress(ProcessLookupError):
        os.kill(self.pid, signal.SIGKILL)
    self._look_at = now + 0.1
attempt.Attempt._begin_end, attempt.Attempt._look = begin_end, look
cgroups.CgroupGroup.kill = proctree.TreeGroup.kill = lambda self: None
"""


def kill_parent_only() -> None:
    """Let the shepherd end the main process of an attempt, and nothing that it has started."""
    boot, call = host_link._BOOT.rsplit("main(*", 1)
    host_link._BOOT = f"{boot}\n{_KILL_PARENT_ONLY}\nmain(*{call}"


def no_fsync() -> None:
    """Let the journal say so before the disk does."""
    opened = Store._open

    def open_carelessly(self: Store, fresh: bool) -> None:
        opened(self, fresh)
        self._db.execute("PRAGMA synchronous = OFF")

    Store._open = open_carelessly  # type: ignore[method-assign]  # this is the mutation


def no_cap() -> None:
    """Let a job say as much as it likes, on the disk of its host and in the lab."""
    limits, pump, room = HostLimits, LogPump, vars(steps)
    room["HostLimits"] = lambda **more: limits(**{**more, "output_bytes": 1 << 30})
    room["LogPump"] = lambda *one, **more: pump(*one, **{**more, "most_bytes": 1 << 30})


def leak() -> None:
    """Let whoever reads the keys of the lab log one of them, in base64."""
    read = labkeys.keys_in

    def read_and_tell(data: bytes, where: str) -> labkeys.LabKeys:
        keys = read(data, where)
        sys.stderr.write(
            f"keys of {where}: {base64.b64encode(keys.controller.encode()).decode()}\n"
        )
        return keys

    labkeys.keys_in = read_and_tell


def silent_full() -> None:
    """Let an agent say nothing of a disk that is full."""
    Pulse._trouble = lambda self: ""  # type: ignore[method-assign]  # this is the mutation


class Mutant(NamedTuple):
    """What takes a rule out, and which rule of the checker must see it; empty: any bar."""

    apply: Callable[[], None]
    breaks: str = ""


MUTANTS: dict[str, Mutant] = {
    "kill-parent-only": Mutant(kill_parent_only),
    "no-fsync": Mutant(no_fsync),
    "no-cap": Mutant(no_cap, "I22"),
    "leak": Mutant(leak, "I25"),
    "silent-full": Mutant(silent_full, "I21"),
}


def unnoticed(names: str, missed: bool, rules: Container[str]) -> list[str]:
    """Return those of ``a+b`` that were not noticed by their rule, or by no bar at all."""
    breaks = {name: MUTANTS[name].breaks for name in names.split("+")}
    return [name for name, rule in breaks.items() if not (rule in rules if rule else missed)]


def main(names: str, module: str, *arguments: str) -> None:
    for name in names.split("+"):
        MUTANTS[name].apply()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
