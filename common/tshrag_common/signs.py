"""PURE: what a console can tell of its DUT; the agent finds it, everybody reads it."""

from typing import Literal

SignKind = Literal[
    "bootloader",  # a boot has begun
    "kernel",  # the kernel has begun
    "login",  # somebody may log in
    "panic",
    "oops",  # an exception in the kernel
    "bug",  # BUG:, kernel BUG at, list corruption
    "kasan",
    "kfence",
    "lockdep",
    "lockup",  # soft and hard lockups, hung tasks, RCU stalls
    "watchdog",  # a watchdog has reset the board, or is about to
]
CRASHES: frozenset[SignKind] = frozenset(
    ("panic", "oops", "bug", "kasan", "kfence", "lockdep", "lockup", "watchdog")
)
