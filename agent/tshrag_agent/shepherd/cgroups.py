"""Groups by cgroup: v2 wherever it is mounted, else the v1 freezer.

On a hybrid system v2 may hold no controller at all; memory and pids then come from their v1
hierarchies, beside the v2 group that holds the processes.
"""

import contextlib
import os
import signal
from typing import NamedTuple

from tshrag_agent.shepherd import groups, native
from tshrag_agent.shepherd.limits import MEMORY, PIDS, Limits

_V1_NAMES = frozenset({"memory", "pids", "freezer"})
_MOST_KEPT = 64  # empty groups that wait for the next attempt


class Hierarchy(NamedTuple):
    """A mounted hierarchy of cgroups: its v1 controllers (none: v2), our own folder in it."""

    controllers: frozenset[str]
    folder: str


def hierarchies(mountinfo: str, own: str) -> list[Hierarchy]:
    """Read /proc/self/mountinfo and /proc/self/cgroup."""
    paths: dict[str, str] = {}
    for line in own.splitlines():
        _, names, path = line.split(":", 2)
        paths.update(dict.fromkeys(names.split(","), path))
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        root, point = left.split()[3:5]
        kind, _, options = right.split(maxsplit=2)
        point = point.replace("\\040", " ")
        if kind == "cgroup2":
            found.append(Hierarchy(frozenset(), _inside(point, root, paths.get("", "/"))))
        elif kind == "cgroup" and (known := _V1_NAMES.intersection(options.split(","))):
            path = paths.get(min(known), "/")
            found.append(Hierarchy(known, _inside(point, root, path)))
    return found


def _inside(point: str, root: str, path: str) -> str:
    if root != "/":
        # A container sees its own part as the root of the mount.
        path = path[len(root) :] if (path + "/").startswith(root + "/") else "/"
    return (point + path).rstrip("/")


class _Controllers:
    """The v1 hierarchies for memory and pids, as far as we may use them."""

    def __init__(self, found: list[Hierarchy], name: str, without: frozenset[str]) -> None:
        self._bases: dict[str, str] = {}
        for limit in (MEMORY, PIDS):
            for hierarchy in found:
                if limit in hierarchy.controllers and limit not in without:
                    base = f"{hierarchy.folder}/{name}"
                    with contextlib.suppress(OSError):
                        _make(base)
                        self._bases[limit] = base
        self.folders = tuple(self._bases.values())

    def take(self, slot: str, limits: Limits) -> tuple[frozenset[str], list[str]]:
        """Make the folders that hold these limits; return which are held, and where."""
        held: set[str] = set()
        made: list[str] = []
        for name, value in ((MEMORY, limits.memory_bytes), (PIDS, limits.pids)):
            if value is None or name not in self._bases:
                continue
            folder = f"{self._bases[name]}/{slot}"
            with contextlib.suppress(OSError):
                _make(folder)
                made.append(folder)
                file = "memory.limit_in_bytes" if name == MEMORY else "pids.max"
                groups.write_text(f"{folder}/{file}", str(value))
                held.add(name)
        return frozenset(held), made


class CgroupGroup:
    """One attempt in one cgroup, v2 or v1 freezer."""

    def __init__(
        self, path: str, *, v2: bool, births: bool, held: frozenset[str], extras: list[str]
    ) -> None:
        self.name, self.held, self.extras = path, held, extras
        self.has_extras = bool(extras)
        self._v2 = v2
        self._was_killed = False
        self._folder_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self._events_fd = os.open(f"{path}/cgroup.events", os.O_RDONLY) if v2 else -1
        self.birth_fd = self._folder_fd if births else -1
        folders = [path, *extras]
        self.enter_fds = tuple(os.open(f"{at}/cgroup.procs", os.O_WRONLY) for at in folders)

    def bind(self, pid: int) -> None:
        """Do nothing: the kernel knows who is in."""

    def pids(self) -> list[int]:
        return [pid for folder in self._folders() for pid in _pids_in(folder)]

    def is_empty(self) -> bool:
        if self._v2:
            return b"populated 0" in os.pread(self._events_fd, 256, 0)
        return not self.pids()

    def kill(self) -> None:
        self._was_killed = True
        if self._v2:
            try:
                groups.write_text(f"{self.name}/cgroup.kill", "1")
                return
            except FileNotFoundError:
                pass  # before Linux 5.14
        self._freeze(True)
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._freeze(False)

    def oom_kills(self) -> int:
        for folder in [self.name, *self.extras] if MEMORY in self.held else []:
            for file in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError, ValueError):
                    words = groups.read_text(f"{folder}/{file}").split()
                    return int(words[words.index("oom_kill") + 1])
        return 0

    def is_fresh(self) -> bool:
        """Tell whether nothing of the last attempt is left in it: no limits, no folders.

        One that was killed is never fresh: Linux 6.18 then kills who is born in it later, too.
        """
        bounded = self.held or self.extras or self._was_killed
        return not bounded and os.fstat(self._folder_fd).st_nlink <= 2

    def remove(self) -> None:
        for fd in (self._folder_fd, self._events_fd, *self.enter_fds):
            if fd >= 0:
                os.close(fd)
        for folder in [self.name, *self.extras]:
            remove_tree(folder)

    def _folders(self) -> list[str]:
        if os.fstat(self._folder_fd).st_nlink <= 2:
            return [self.name]
        return [at for at, _, _ in os.walk(self.name)]

    def _freeze(self, frozen: bool) -> None:
        # A job that forks while it is being killed must stand still.
        file, word = ("cgroup.freeze", str(int(frozen))) if self._v2 else ("freezer.state", "")
        word = word or ("FROZEN" if frozen else "THAWED")
        with contextlib.suppress(OSError):
            groups.write_text(f"{self.name}/{file}", word)


class CgroupGroups:
    """Makes cgroups below the one we live in; keeps some, since making one costs."""

    def __init__(self, *, v2: bool, base: str, name: str, found: list[Hierarchy]) -> None:
        self.kind = "v2" if v2 else "v1"
        self._base = base
        self._v2 = v2
        self._made = 0
        self._free: list[CgroupGroup] = []
        _make(base)
        self._own = _hand_down(base) if v2 else frozenset[str]()
        self._controllers = _Controllers(found, name, without=self._own)
        self.folders = (base, *self._controllers.folders)
        self._births = v2 and _may_be_born_in(base)
        self.home_fd = -1
        with contextlib.suppress(OSError):
            self.home_fd = os.open(f"{os.path.dirname(base)}/cgroup.procs", os.O_WRONLY)

    def take(self, limits: Limits, mark: str) -> CgroupGroup:
        if self._free and not limits.needs_controller:
            return self._free.pop()
        self._made += 1
        slot = f"{os.getpid()}-{self._made}"
        path = f"{self._base}/{slot}"
        _make(path)
        held, extras = self._controllers.take(slot, limits)
        held |= self._limit(path, limits)
        return CgroupGroup(path, v2=self._v2, births=self._births, held=held, extras=extras)

    def give_back(self, group: groups.Group) -> None:
        assert isinstance(group, CgroupGroup)
        if group.is_fresh() and len(self._free) < _MOST_KEPT:
            self._free.append(group)
        else:
            group.remove()

    def close(self) -> None:
        while self._free:
            self._free.pop().remove()
        for folder in self.folders:
            remove_tree(folder)

    def _limit(self, path: str, limits: Limits) -> frozenset[str]:
        held = set()
        if limits.memory_bytes is not None and MEMORY in self._own:
            groups.write_text(f"{path}/memory.max", str(limits.memory_bytes))
            with contextlib.suppress(OSError):  # no swap in this kernel
                groups.write_text(f"{path}/memory.swap.max", "0")
            held.add(MEMORY)
        if limits.pids is not None and PIDS in self._own:
            groups.write_text(f"{path}/pids.max", str(limits.pids))
            held.add(PIDS)
        return frozenset(held)


def open_cgroups(kind: str, name: str, mountinfo: str, own: str) -> CgroupGroups:
    """Open groups of `kind` below our own folder, called `name`; OSError where that cannot be."""
    found = hierarchies(mountinfo, own)
    v2 = kind == "v2"
    for hierarchy in found:
        fits = not hierarchy.controllers if v2 else "freezer" in hierarchy.controllers
        if not fits:
            continue
        made = CgroupGroups(v2=v2, base=f"{hierarchy.folder}/{name}", name=name, found=found)
        try:
            _probe(made)
        except OSError:
            made.close()
            raise
        return made
    raise FileNotFoundError(f"no cgroup {kind} is mounted here")


def remove_tree(folder: str) -> None:
    """Remove a cgroup and all below it as far as they are empty."""
    for at, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(at)


def kill_tree(folder: str) -> list[int]:
    """Send SIGKILL to everything in a cgroup of an earlier shepherd; return who was there."""
    found = [pid for at, _, _ in os.walk(folder) for pid in _pids_in(at) if pid != os.getpid()]
    with contextlib.suppress(OSError):  # v1 has no such file
        groups.write_text(f"{folder}/cgroup.kill", "1")
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found


def _pids_in(folder: str) -> list[int]:
    try:
        return [int(word) for word in groups.read_text(f"{folder}/cgroup.procs").split()]
    except OSError:
        return []  # gone, with all that was in it


def _make(path: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o755)


def _hand_down(base: str) -> frozenset[str]:
    """Let the groups below `base` have memory and pids, where the system lets us."""
    for folder in (os.path.dirname(base), base):
        for name in (MEMORY, PIDS):
            with contextlib.suppress(OSError):
                groups.write_text(f"{folder}/cgroup.subtree_control", f"+{name}")
    with contextlib.suppress(OSError):
        return frozenset(groups.read_text(f"{base}/cgroup.subtree_control").split())
    return frozenset()


def _may_be_born_in(base: str) -> bool:
    folder_fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    try:
        pid = native.fork_into(folder_fd)
    except OSError:
        return False  # no clone3: an old kernel, or a filter that forbids it
    finally:
        os.close(folder_fd)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return True


def _probe(made: CgroupGroups) -> None:
    """Enter a group as a child and leave it: OSError where that is forbidden."""
    group = made.take(Limits(), "probe")
    try:
        pid = os.fork()
        if pid == 0:
            _enter_and_exit(group)
        if os.waitpid(pid, 0)[1]:
            raise PermissionError(f"{group.name} cannot be entered")
    finally:
        group.remove()


def _enter_and_exit(group: CgroupGroup) -> None:
    try:
        for fd in group.enter_fds:
            os.write(fd, b"0")
        os._exit(0)
    finally:
        os._exit(1)
