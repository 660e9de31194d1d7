"""The accounts of a lab as JWTs, the templates of rights, and their push to a running server.

Bytes of channels go between AGENTS and a USERS-<org> directly: the server puts the org before what
a person says, a person hears what bears his name, and no agent hears or forges what is another's.

Agents speak to each other directly too, for jobs of gangs: the last part of the subject is who
says it, and each may put its own name there only.

CTL alone holds JetStream. AGENTS and each USERS-<org> reach it through service imports only: in
one shared account an agent could forge another's report through the reply subject of a request.
"""

from typing import Literal

import msgspec

from tshrag_common import subjects
from tshrag_common.bus.connection import Bus
from tshrag_common.errors import Refused, Unreachable
from tshrag_common.ids import OrgId
from tshrag_common.keys import Key, issue
from tshrag_common.labkeys import LabKeys

_NAME = "{{name()}}"  # the server puts the name of the user's JWT there
_ALL = subjects.ANY
_LIMITS: dict[str, object] = {
    **dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1),
    "wildcards": True,
}
_WITH_STORE = _LIMITS | dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
_PUSH_WITHIN_S = 5.0

Share = Literal["service", "stream"]


def accounts_config(keys: LabKeys) -> dict[str, object]:
    """Return the part of the server's configuration that holds operator and accounts."""
    operator, system = Key(keys.operator), Key(keys.sys).public
    about: dict[str, object] = {"type": "operator", "system_account": system}
    return {
        "operator": issue(operator, operator.public, "lab", about),
        "system_account": system,
        "resolver_preload": account_jwts(keys),
    }


def account_jwts(keys: LabKeys) -> dict[str, str]:
    """Return the JWT of every account by its public key, as `keys` want them now."""
    jwts = [
        _account(keys, keys.sys, "SYS", {}),
        _account(keys, keys.ctl, "CTL", {"limits": _WITH_STORE, "exports": _exports(keys)}),
        _account(
            keys,
            keys.agents_account,
            "AGENTS",
            {
                "imports": _agent_imports(keys),
                "exports": _agent_exports(),
                "signing_keys": [_role("agent", keys.agent_role, AGENT_RIGHTS)],
            },
        ),
    ]
    for org, seed in keys.orgs.items():
        role = _role("person", keys.person_role, PERSON_RIGHTS)
        limits = _LIMITS | {"conn": MOST_PEOPLE_CONNECTIONS}
        about: dict[str, object] = {
            "imports": _org_imports(keys, org),
            "signing_keys": [role],
            "limits": limits,
        }
        jwts.append(_account(keys, seed, f"USERS-{org}", about))
    return dict(jwts)


async def push_accounts(system: Bus, keys: LabKeys) -> None:
    """Give the running server all accounts as `keys` want them: new orgs, revocations.

    `system` is a connection of SYS. Who was revoked is disconnected within a second.

    Raises:
        Refused: the server does not take one (``nats_claims``).
        Unreachable: it does not answer; push again, it is safe to repeat.

    """
    for jwt in account_jwts(keys).values():
        answer = await system.request(subjects.CLAIMS_UPDATE, jwt.encode(), _PUSH_WITHIN_S)
        try:
            said = msgspec.json.decode(answer.data, type=_ClaimsAnswer)
        except msgspec.DecodeError as error:
            raise Unreachable("nats", f"no answer to an update of accounts: {error}") from error
        if said.error is not None:
            raise Refused("nats", said.error.description, code="nats_claims")


class _ClaimsError(msgspec.Struct):
    description: str = ""


class _ClaimsAnswer(msgspec.Struct):
    error: _ClaimsError | None = None


MOST_AGENT_SUBS = 1024
MOST_PERSON_SUBS = 256
"""Subscriptions of one connection: commands or news, an inbox, and channels that are open."""
MOST_PEOPLE_CONNECTIONS = 2_000
"""Of all people and programs of one org at once: the server takes 20,000 in all."""


def _rights(pub: list[str], sub: list[str], most_subs: int) -> dict[str, object]:
    return {
        "pub": {"allow": pub},
        "sub": {"allow": [*sub, f"{subjects.inbox_prefix(_NAME)}.>"]},
        "subs": most_subs,
        "data": -1,
        "payload": 1 << 20,
        "allowed_connection_types": ["STANDARD"],
    }


_AGENT_SAYS, _AGENT_HEARS = subjects.may_exchange(_NAME)
_AGENT_MAILS, _AGENT_IS_MAILED = subjects.may_mail(_NAME)
_PERSON_SAYS, _PERSON_HEARS = subjects.person_exchanges(_NAME)
AGENT_RIGHTS = _rights(
    [*subjects.may_publish(_NAME), _AGENT_SAYS, _AGENT_MAILS],
    [*subjects.may_hear(_NAME), _AGENT_HEARS, _AGENT_IS_MAILED],
    MOST_AGENT_SUBS,
)
PERSON_RIGHTS = _rights(
    [subjects.any_req(), _PERSON_SAYS],
    [subjects.any_ui(None), _PERSON_HEARS],
    MOST_PERSON_SUBS,
)


def _exports(keys: LabKeys) -> list[dict[str, object]]:
    exports = [_export("service", subjects.any_said(kind)) for kind in subjects.AGENT_SAYS]
    exports.append(_export("stream", subjects.any_command()))
    exports += [_export("service", subjects.any_req(org)) for org in keys.orgs]
    exports += [_export("stream", subjects.any_ui(org)) for org in keys.orgs]
    return exports


def _agent_imports(keys: LabKeys) -> list[dict[str, object]]:
    imports = [_import(keys, "service", subject) for subject in subjects.may_publish(_ALL)]
    return [*imports, _import(keys, "stream", subjects.any_command())]


def _agent_exports() -> list[dict[str, object]]:
    return [
        _export("service", subjects.any_channel("in")),
        _export("stream", subjects.any_channel("out")),
    ]


def _org_imports(keys: LabKeys, org: OrgId) -> list[dict[str, object]]:
    """Return what `org` reaches. The server adds the org to the subject and says who asks."""
    req = _import(keys, "service", subjects.any_req(org))
    ui = _import(keys, "stream", subjects.any_ui(org))
    said, heard = subjects.any_channel("in", org), subjects.any_channel("out", org)
    agents = Key(keys.agents_account).public
    return [
        req | {"local_subject": subjects.any_req(), "share": True},
        ui | {"local_subject": subjects.any_ui(None)},
        _import_from(agents, "service", said) | {"local_subject": subjects.any_channel("in")},
        _import_from(agents, "stream", heard) | {"local_subject": subjects.any_channel("out")},
    ]


def _export(kind: Share, subject: str) -> dict[str, object]:
    return {"name": subject, "subject": subject, "type": kind}


def _import(keys: LabKeys, kind: Share, subject: str) -> dict[str, object]:
    return _import_from(Key(keys.ctl).public, kind, subject)


def _import_from(account: str, kind: Share, subject: str) -> dict[str, object]:
    return {**_export(kind, subject), "account": account}


def _role(name: str, seed: str, rights: dict[str, object]) -> dict[str, object]:
    return {"kind": "user_scope", "key": Key(seed).public, "role": name, "template": rights}


def _account(keys: LabKeys, seed: str, name: str, about: dict[str, object]) -> tuple[str, str]:
    account = Key(seed).public
    body: dict[str, object] = {"type": "account", "limits": _LIMITS, **about}
    if account in keys.revoked:
        body["revocations"] = dict(keys.revoked[account])
    return account, issue(Key(keys.operator), account, name, body)
