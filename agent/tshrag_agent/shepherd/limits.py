"""What a host process may use, and who sees to it."""

import resource
from collections.abc import Mapping
from typing import Any, NamedTuple

from tshrag_agent.shepherd import protocol

MEMORY = "memory"
PIDS = "pids"

Rlimit = tuple[int, int, int]
"""Which resource, soft and hard limit."""


class Limits(NamedTuple):
    """Bounds of one attempt; None is no bound of ours."""

    wall_s: float | None = None
    memory_bytes: int | None = None
    pids: int | None = None
    open_files: int | None = None
    file_bytes: int | None = None
    cpu_s: int | None = None
    output_bytes: int = protocol.OUTPUT_BYTES

    @property
    def needs_controller(self) -> bool:
        return self.memory_bytes is not None or self.pids is not None

    def rlimits(self, held: frozenset[str]) -> list[Rlimit]:
        """Return what the process itself must carry; `held` are the limits that a cgroup holds.

        Memory becomes address space of each single process, pids becomes processes of the
        user, which binds everybody but root: both are weaker than a cgroup, better than none.
        """
        found: list[Rlimit] = []
        if self.memory_bytes is not None and MEMORY not in held:
            found.append((resource.RLIMIT_AS, self.memory_bytes, self.memory_bytes))
        if self.pids is not None and PIDS not in held:
            found.append((resource.RLIMIT_NPROC, self.pids, self.pids))
        if self.open_files is not None:
            found.append((resource.RLIMIT_NOFILE, self.open_files, self.open_files))
        if self.file_bytes is not None:
            found.append((resource.RLIMIT_FSIZE, self.file_bytes, self.file_bytes))
        if self.cpu_s is not None:
            # SIGXCPU at the soft limit can be handled, SIGKILL at the hard one cannot.
            found.append((resource.RLIMIT_CPU, self.cpu_s, self.cpu_s + 5))
        return found


def limits(said: Mapping[str, Any]) -> Limits:
    """Read limits from a message; unknown names, of a newer agent, are left out."""
    known = {name: value for name, value in said.items() if name in Limits._fields}
    for name, value in known.items():
        positive = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
        if value is not None and not positive:
            raise protocol.Rejected("bad_limit", name, f"{value!r} is no number above 0")
    return Limits(**{name: value for name, value in known.items() if value is not None})


def widen_open_files() -> Rlimit:
    """Let this process open as many files as it may; return what it had, for its children."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft == resource.RLIM_INFINITY or soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return (resource.RLIMIT_NOFILE, soft, hard)
