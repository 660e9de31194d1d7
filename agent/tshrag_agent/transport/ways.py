"""What an operator says of the way to a DUT: the transport tables of ``agent.toml``.

No library is needed to read them: asyncssh is imported when the first SSH DUT is used.
"""

from typing import Annotated

import msgspec

HostName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9:_][A-Za-z0-9.:%_-]*$", max_length=253)]
"""A name or an address; one that begins with '-' would be an option somewhere."""

UserName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._@\\-]*$", max_length=64)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86400)]
RunDir = Annotated[str, msgspec.Meta(pattern=r"^(/[A-Za-z0-9_/-]+)?$", max_length=80)]
"""An absolute path on the DUT; it stands in command lines and patterns, so: no other signs."""


class Guard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the wrapper on a DUT watches over an attempt.

    ``lease_s`` without a heartbeat end it, ``grace_s`` lie between SIGTERM and SIGKILL. The fence
    is kept in ``run_dir``; empty: ``/run/tshrag`` for root, else ``/tmp/tshrag-UID``.
    ``unguarded`` allows a DUT without a capable shell; a lost link may then leave processes.
    """

    lease_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 10
    beat_s: Seconds = 2.0
    grace_s: Seconds = 5.0
    run_dir: RunDir = ""
    unguarded: bool = False


class LocalWay(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The DUT is this host."""

    guard: Guard = Guard()


class SshWay(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The DUT answers SSH. Nothing of ``~/.ssh`` is read; what is not said here is not used.

    ``host_key`` is the pinned key: its text as in ``ssh_host_ed25519_key.pub``, or the path of
    such a file. A key file or ``password_file`` or the SSH agent (``use_agent``) lets us in.
    ``patience_s``: how long a link that worked before is tried again, as after a reboot.
    """

    host: HostName
    host_key: str
    port: Port = 22
    user: UserName = "root"
    key_file: str = ""
    password_file: str = ""
    use_agent: bool = False
    jump: "SshWay | None" = None
    connect_timeout_s: Seconds = 10.0
    keepalive_s: Seconds = 5.0
    patience_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 10.0
    guard: Guard = Guard()

    @property
    def where(self) -> str:
        """Return how errors name the DUT."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user}@{host}:{self.port}"


class FlashWay(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command of this host that writes an image to the DUT: an argv, no shell.

    ``{image}``, ``{slot}`` and ``{dut}`` in its words are put in.
    """

    command: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=1000)]
    timeout_s: Seconds = 600.0
