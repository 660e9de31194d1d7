"""Who asks: the org from the subject, the person from what the server itself wrote."""

import msgspec

from tshrag_common.errors import PolicyDenied
from tshrag_common.ids import OrgId


class Asker(msgspec.Struct, frozen=True):
    """An org, and a name for the record."""

    org: OrgId
    name: str


class _RequestInfo(msgspec.Struct):
    kind: str = ""
    name_tag: str = ""
    user: str = ""


def asker_of(org: OrgId, headers: dict[str, str], plain: bool) -> Asker:
    """Return who asks. The server writes ``Nats-Request-Info``; a client cannot forge it.

    Its ``name`` is never used: the client chooses that. On a server without accounts nobody
    vouches for anybody.

    Raises:
        PolicyDenied: the request came over a leaf link, where the header names the link.

    """
    if plain:
        return Asker(org, "anybody")
    raw = headers.get("Nats-Request-Info", "{}")
    try:
        info = msgspec.json.decode(raw, type=_RequestInfo)
    except msgspec.DecodeError:
        info = _RequestInfo()
    if info.kind != "Client":
        raise PolicyDenied("request", f"it came from a {info.kind or 'nobody'}, not from a client")
    return Asker(org, info.name_tag or info.user[:12])
