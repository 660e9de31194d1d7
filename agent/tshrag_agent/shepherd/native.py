"""The few calls of the kernel that Python's library does not offer, by ctypes."""

import ctypes
import errno
import os

_CLONE3 = 435  # on x86, ARM, RISC-V, POWER and s390; where it is not, the probe falls back
_CLONE_CLEAR_SIGHAND = 0x1_0000_0000
_CLONE_INTO_CGROUP = 0x2_0000_0000
_SIGCHLD = 17
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01

# PyDLL keeps the GIL: a child made by clone3 goes on as a Python process, like one of os.fork.
_libc = ctypes.PyDLL(None, use_errno=True)
_fallocate = _libc.fallocate64 if hasattr(_libc, "fallocate64") else _libc.fallocate  # musl
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class _CloneArgs(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            *("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack"),
            *("stack_size", "tls", "set_tid", "set_tid_size", "cgroup"),
        )
    ]


def fork_into(group_fd: int) -> int:
    """Fork; the child is born in the cgroup v2 whose folder is open as `group_fd`.

    The child has default signal handlers. Only a process of one thread may call it.
    """
    args = _CloneArgs(
        flags=_CLONE_CLEAR_SIGHAND | _CLONE_INTO_CGROUP, exit_signal=_SIGCHLD, cgroup=group_fd
    )
    pid = int(_libc.syscall(_CLONE3, ctypes.byref(args), ctypes.sizeof(args)))
    if pid < 0:
        raise _error("clone3")
    return pid


def punch_hole(fd: int, start: int, length: int) -> None:
    """Give back the disk space of a part of a file; its size stays, the part reads as zeros."""
    if _fallocate(fd, _PUNCH_HOLE_KEEP_SIZE, start, length):
        raise _error("fallocate")


def become_subreaper() -> None:
    """Let every orphan among our descendants become our child."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def give_up_new_privileges() -> None:
    """From now on no set-user-id program gives more rights to us or to what we start."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def die_with_parent() -> None:
    """Be killed as soon as the process that started us is gone."""
    _prctl(_PR_SET_PDEATHSIG, 9)


def set_process_name(name: bytes) -> None:
    """Show `name` (at most 15 bytes) where processes are listed."""
    _libc.prctl(_PR_SET_NAME, name, 0, 0, 0)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0):
        raise _error("prctl")


def _error(call: str) -> OSError:
    number = ctypes.get_errno() or errno.EIO
    return OSError(number, f"{call}: {os.strerror(number)}")
