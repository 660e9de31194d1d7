"""Programs that do not want to end, and the look whether they have."""

import os
from pathlib import Path

DEAF_TREE = """
trap '' TERM
sleep 300.{tag} &
setsid sh -c "trap '' TERM; sleep 301.{tag} & sleep 302.{tag}" &
env -i sleep 303.{tag} &
echo ready
while :; do sleep 304.{tag}; done
"""
"""Deaf to SIGTERM: children, a daemon in a session of its own, a child without environment."""


def deaf_tree(tag: int) -> str:
    return DEAF_TREE.format(tag=tag)


def living(sign: str) -> list[int]:
    """Return the pids, but for this process, whose arguments or environment hold `sign`."""
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and int(entry.name) != os.getpid() and _holds(entry, sign.encode())
    ]


def _holds(entry: Path, sign: bytes) -> bool:
    try:
        return any(sign in (entry / file).read_bytes() for file in ("cmdline", "environ"))
    except OSError:
        return False


def peak_rss_bytes() -> int:
    """Return the most memory that this process has ever held."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM in /proc/self/status")
