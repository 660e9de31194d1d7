"""PURE: what switching power comes to: a command, a request or some bytes."""

from typing import Annotated

import msgspec
from msgspec import Meta

Argv = tuple[str, ...]
Url = Annotated[str, Meta(pattern=r"^https?://[^\s]+$", max_length=2048)]
Hex = Annotated[str, Meta(pattern=r"^([0-9A-Fa-f]{2} ?){1,64}$")]
PlainWord = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:/-]{1,200}$")]


class Execute(msgspec.Struct, frozen=True):
    """Execute a command of this host."""

    argv: Argv
    env: dict[str, str] = {}


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Make a request; a status of 2xx is right."""

    url: str
    method: str = "GET"
    body: str = ""
    headers_file: str = ""
    type: str = ""  # of the body


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """Write bytes to a serial line."""

    device: str
    data: bytes
    baud: int


PowerAct = Execute | Request | Write


class PowerActs(msgspec.Struct, frozen=True, kw_only=True):
    """What to do; None where it cannot be done. A regex says which answer means what."""

    on: PowerAct | None = None
    off: PowerAct | None = None
    cycle: PowerAct | None = None
    status: PowerAct | None = None
    status_on: str = r"^\s*(?i:on)\b"
    status_off: str = r"^\s*(?i:off)\b"
    read: PowerAct | None = None
    watts: str = r"(-?\d+(?:\.\d+)?)"  # the first number
