"""Who asks: the org from the subject, the person from what the server itself wrote."""

import msgspec

from tshrag_common.errors import PolicyDenied
from tshrag_common.ids import OrgId
from tshrag_common.labkeys import OPERATOR, ROLE_TAG


class Asker(msgspec.Struct, frozen=True):
    """An org, and a name for the record."""

    org: OrgId
    name: str
    role: str = ""  # OPERATOR, or none

    @property
    def person(self) -> str:
        return f"{self.org}/{self.name}"

    @property
    def is_operator(self) -> bool:
        return self.role == OPERATOR

    def must_operate(self, what: str) -> None:
        """Raise PolicyDenied unless this is an operator of the lab."""
        if not self.is_operator:
            fix = "ask an operator; 'tshrag user add NAME --role operator' makes one"
            raise PolicyDenied(what, f"{self.person} is no operator of this lab", fix)


class _RequestInfo(msgspec.Struct):
    kind: str = ""
    name_tag: str = ""
    user: str = ""
    tags: tuple[str, ...] = ()


def asker_of(org: OrgId, headers: dict[str, str], plain: bool) -> Asker:
    """Return who asks. The server writes ``Nats-Request-Info``; a client cannot forge it.

    Its ``name`` is never used: the client chooses that. On a server without accounts nobody
    vouches for anybody.

    Raises:
        PolicyDenied: the request came over a leaf link, where the header names the link.

    """
    if plain:
        return Asker(org, "anybody", OPERATOR)
    raw = headers.get("Nats-Request-Info", "{}")
    try:
        info = msgspec.json.decode(raw, type=_RequestInfo)
    except msgspec.DecodeError:
        info = _RequestInfo()
    if info.kind != "Client":
        raise PolicyDenied("request", f"it came from a {info.kind or 'nobody'}, not from a client")
    tags = (tag.removeprefix(ROLE_TAG) for tag in info.tags if tag.startswith(ROLE_TAG))
    return Asker(org, info.name_tag or info.user[:12], next(tags, ""))
