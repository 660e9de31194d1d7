"""Broken on purpose: processes of the product with one rule taken out, to see that it is noticed.

    python -m tests.chaos.mutants NAME MODULE ARGUMENT...

What a virtual clock can show is tried in seconds by ``tests/simulation/mutations.py``; here are
the rules that only real kernels keep. Nothing of this is in the product.
"""

import runpy
import sys
from collections.abc import Callable

from tshrag_agent.attempts import host_link
from tshrag_agent.journal.store import Store

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


MUTANTS: dict[str, Callable[[], None]] = {
    "kill-parent-only": kill_parent_only,
    "no-fsync": no_fsync,
}


def main(name: str, module: str, *arguments: str) -> None:
    MUTANTS[name]()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
