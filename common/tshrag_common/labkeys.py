"""Every key of one lab in one file: who may issue, whom it has issued, who was revoked.

Adding an agent or a person takes the role keys only and no word to the server. A new org or a
revocation makes new JWTs of accounts, which the controller pushes to the running server.
Rights themselves stand in the controller's ``nats_server/accounts.py``.
"""

import hmac
import os
import time
from pathlib import Path

import msgspec

from tshrag_common.errors import NotFound, Refused
from tshrag_common.ids import AgentId, OrgId, agent_id, org_id, token
from tshrag_common.keys import (
    Bundle,
    Credentials,
    Key,
    claims_of,
    new_key,
    new_user,
    read_secret,
    write_secret,
)

ROLE_TAG = "role:"
OPERATOR = "operator"
"""The role of those who run the lab: they take boards out of service, and leases over."""

_UNFENCED: dict[str, object] = {"subs": -1, "data": -1, "payload": -1}


class LabKeys(msgspec.Struct, frozen=True, kw_only=True):
    """All seeds of a lab. A change is a new value; `save` is what makes it last.

    ``agents`` and ``people`` (as ``org/name``) hold the public key that was issued last.
    ``revoked`` holds, for an account, when each of its users' keys was revoked.
    """

    operator: str
    sys: str
    ctl: str
    agents_account: str
    agent_role: str
    person_role: str
    controller: str
    secret: str  # hexadecimal; the MAC keys of agents come from it
    orgs: dict[OrgId, str] = msgspec.field(default_factory=dict[OrgId, str])
    agents: dict[AgentId, str] = msgspec.field(default_factory=dict[AgentId, str])
    people: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    revoked: dict[str, dict[str, int]] = msgspec.field(default_factory=dict[str, dict[str, int]])
    version: int = 1

    @property
    def controller_key(self) -> str:
        """Return the public key by which agents check commands."""
        return Key(self.controller).public

    def account_of(self, org: OrgId) -> str:
        """Return the public key of the account of `org`, as the server names who asks."""
        if org not in self.orgs:
            raise NotFound("org", org, self.orgs)
        return Key(self.orgs[org]).public

    def mac_key(self, agent: AgentId) -> bytes:
        """Return the key with which `agent` seals its reports."""
        return hmac.digest(bytes.fromhex(self.secret), b"agent\0" + agent.encode(), "sha256")

    def with_org(self, org: OrgId) -> "LabKeys":
        """Return the keys with an account for `org`; the same ones where it has one."""
        if org in self.orgs:
            return self
        orgs = {**self.orgs, org_id(org): new_key("account").seed}
        return msgspec.structs.replace(self, orgs=orgs)

    def with_agent(self, agent: AgentId, url: str, *, ca: str = "") -> tuple["LabKeys", Bundle]:
        """Issue what `agent` needs on its host; an earlier bundle stays valid until revoked."""
        account = Key(self.agents_account).public
        creds = new_user(Key(self.agent_role), account, agent_id(agent))
        agents = {**self.agents, agent: _public_of(creds)}
        bundle = msgspec.structs.replace(self.plain_agent(agent, url), creds=creds.text, ca=ca)
        return msgspec.structs.replace(self, agents=agents), bundle

    def plain_agent(self, agent: AgentId, url: str) -> Bundle:
        """Return the bundle of `agent` for a server without accounts: seals, no credentials."""
        return Bundle(
            kind="agent",
            name=agent_id(agent),
            url=url,
            controller_key=self.controller_key,
            mac_key=self.mac_key(agent).hex(),
        )

    def with_person(
        self, name: str, org: OrgId, url: str, *, ca: str = "", role: str = ""
    ) -> tuple["LabKeys", Bundle]:
        """Issue what a person or a CI of `org` needs; refuse an org that has no account.

        The `role` stands as a tag in the JWT: the server vouches for it to the controller.
        """
        account = self.account_of(org)
        tags: dict[str, object] = {"tags": [f"{ROLE_TAG}{role}"]} if role else {}
        creds = new_user(Key(self.person_role), account, token("person", name), tags)
        people = {**self.people, f"{org}/{name}": _public_of(creds)}
        bundle = Bundle(kind="person", name=name, org=org, url=url, creds=creds.text, ca=ca)
        return msgspec.structs.replace(self, people=people), bundle

    def controller_creds(self, name: str) -> Credentials:
        """Issue a controller: all of CTL, JetStream too."""
        account = Key(self.ctl)
        return new_user(account, account.public, token("controller", name), _UNFENCED)

    def system_creds(self, name: str) -> Credentials:
        """Issue a user of SYS: it pushes accounts and hears who connects."""
        account = Key(self.sys)
        return new_user(account, account.public, token("controller", name), _UNFENCED)

    def without_agent(self, agent: AgentId) -> "LabKeys":
        """Revoke `agent`: the push of the account ends its connection within a second."""
        if agent not in self.agents:
            raise NotFound("agent", agent, self.agents)
        agents = {name: key for name, key in self.agents.items() if name != agent}
        account = Key(self.agents_account).public
        return msgspec.structs.replace(
            self, agents=agents, revoked=self._revoked(account, self.agents[agent])
        )

    def without_person(self, name: str, org: OrgId) -> "LabKeys":
        """Revoke a person, as `without_agent` does."""
        entry = f"{org}/{name}"
        if entry not in self.people:
            raise NotFound("person", entry, self.people)
        people = {known: key for known, key in self.people.items() if known != entry}
        return msgspec.structs.replace(
            self, people=people, revoked=self._revoked(self.account_of(org), self.people[entry])
        )

    def save(self, path: Path) -> None:
        write_secret(path, msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")

    def _revoked(self, account: str, user: str) -> dict[str, dict[str, int]]:
        """Return `revoked` with `user`; what was issued until now, this second included, ends."""
        users = {**self.revoked.get(account, {}), user: int(time.time()) + 1}
        return {**self.revoked, account: users}


def new_lab(*orgs: OrgId) -> LabKeys:
    """Make the keys of a new lab, with an account for each of `orgs`."""
    account = [new_key("account").seed for _ in range(5)]
    keys = LabKeys(
        operator=new_key("operator").seed,
        sys=account[0],
        ctl=account[1],
        agents_account=account[2],
        agent_role=account[3],
        person_role=account[4],
        controller=new_key("user").seed,
        secret=os.urandom(32).hex(),
    )
    for org in orgs:
        keys = keys.with_org(org)
    return keys


def load_lab(path: Path) -> LabKeys:
    """Read the keys that `save` has written.

    Raises:
        Refused: missing, readable by others, damaged, or of a newer version (``creds``).

    """
    try:
        keys = msgspec.json.decode(read_secret(path), type=LabKeys)
    except msgspec.DecodeError as error:
        raise Refused(str(path), f"no keys of a lab: {error}", code="creds") from None
    if keys.version != 1:
        raise Refused(str(path), f"version {keys.version}, supported 1", code="creds")
    return keys


def _public_of(creds: Credentials) -> str:
    return str(claims_of(creds.jwt)["sub"])
