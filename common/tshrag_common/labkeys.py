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

    ``agents`` and ``people`` (as ``org/name``) hold the public key that was issued last,
    ``earlier`` (as ``agent/name``, ``person/org/name``) those before it that are still good.
    ``macs`` counts how often the seal of an agent's reports was exchanged; the one before the
    last is good while an earlier key is. ``controller_next`` is the key that will sign commands:
    whoever gets credentials from now on trusts both.
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
    earlier: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict[str, tuple[str, ...]])
    macs: dict[AgentId, int] = msgspec.field(default_factory=dict[AgentId, int])
    controller_next: str = ""

    @property
    def controller_key(self) -> str:
        """Return the public keys by which agents check commands, with a space between two."""
        seeds = [seed for seed in (self.controller, self.controller_next) if seed]
        return " ".join(Key(seed).public for seed in seeds)

    def account_of(self, org: OrgId) -> str:
        """Return the public key of the account of `org`, as the server names who asks."""
        if org not in self.orgs:
            raise NotFound("org", org, self.orgs)
        return Key(self.orgs[org]).public

    def mac_key(self, agent: AgentId) -> bytes:
        """Return the key with which `agent` seals its reports."""
        return self._mac(agent, self.macs.get(agent, 0))

    def mac_keys(self, agent: AgentId) -> tuple[bytes, ...]:
        """Return the seals that count, the newest first; two while one is being exchanged."""
        newest = self.macs.get(agent, 0)
        has_earlier = f"agent/{agent}" in self.earlier
        return tuple(
            self._mac(agent, number)
            for number in (newest, newest - 1)[: 1 + has_earlier]
            if number >= 0
        )

    def _mac(self, agent: AgentId, number: int) -> bytes:
        said = b"agent\0" + agent.encode() + (b"\0%d" % number if number else b"")
        return hmac.digest(bytes.fromhex(self.secret), said, "sha256")

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
        earlier = self._with_earlier(f"agent/{agent}", self.agents.get(agent, ""))
        bundle = msgspec.structs.replace(self.plain_agent(agent, url), creds=creds.text, ca=ca)
        return msgspec.structs.replace(self, agents=agents, earlier=earlier), bundle

    def with_new_mac(self, agent: AgentId) -> "LabKeys":
        """Return the keys with another seal for what `agent` is issued from now on."""
        return msgspec.structs.replace(self, macs={**self.macs, agent: self.macs.get(agent, 0) + 1})

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
        earlier = self._with_earlier(f"person/{org}/{name}", self.people.get(f"{org}/{name}", ""))
        bundle = Bundle(kind="person", name=name, org=org, url=url, creds=creds.text, ca=ca)
        return msgspec.structs.replace(self, people=people, earlier=earlier), bundle

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
        keys = self.without_earlier_agent(agent)
        agents = {name: key for name, key in self.agents.items() if name != agent}
        account = Key(self.agents_account).public
        revoked = keys._revoked(account, self.agents[agent])
        return msgspec.structs.replace(keys, agents=agents, revoked=revoked)

    def without_earlier_agent(self, agent: AgentId) -> "LabKeys":
        """Revoke what `agent` was issued before the last time."""
        if agent not in self.agents:
            raise NotFound("agent", agent, self.agents)
        return self._without_earlier(f"agent/{agent}", Key(self.agents_account).public)

    def without_earlier_person(self, name: str, org: OrgId) -> "LabKeys":
        if f"{org}/{name}" not in self.people:
            raise NotFound("person", f"{org}/{name}", self.people)
        return self._without_earlier(f"person/{org}/{name}", self.account_of(org))

    def without_person(self, name: str, org: OrgId) -> "LabKeys":
        """Revoke a person, as `without_agent` does."""
        entry = f"{org}/{name}"
        if entry not in self.people:
            raise NotFound("person", entry, self.people)
        keys = self.without_earlier_person(name, org)
        people = {known: key for known, key in self.people.items() if known != entry}
        revoked = keys._revoked(self.account_of(org), self.people[entry])
        return msgspec.structs.replace(keys, people=people, revoked=revoked)

    def with_next_controller(self) -> "LabKeys":
        """Make the key that will sign commands once every agent trusts it; it stays the same."""
        if self.controller_next:
            return self
        return msgspec.structs.replace(self, controller_next=new_key("user").seed)

    def with_controller_changed(self) -> "LabKeys":
        """Let the next key sign from now on; the one before is worth nothing any more."""
        if not self.controller_next:
            fix = "begin with 'tshrag keys rotate', then exchange the files of all agents"
            raise Refused("keys", "there is no next key of the controller", fix, code="no_keys")
        return msgspec.structs.replace(self, controller=self.controller_next, controller_next="")

    def controller_bundle(self, name: str, url: str, *, plain: bool, ca: str = "") -> Bundle:
        """Return the file with which another controller joins: it holds all keys of the lab."""
        creds = "" if plain else self.controller_creds(name).text
        lab = msgspec.json.encode(self).decode()
        return Bundle(
            kind="controller", name=token("controller", name), url=url, creds=creds, ca=ca, lab=lab
        )

    def save(self, path: Path) -> None:
        write_secret(path, msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")

    def _with_earlier(self, entry: str, key: str) -> dict[str, tuple[str, ...]]:
        if not key:
            return self.earlier
        return {**self.earlier, entry: (*self.earlier.get(entry, ()), key)}

    def _without_earlier(self, entry: str, account: str) -> "LabKeys":
        keys = self
        for user in self.earlier.get(entry, ()):
            keys = msgspec.structs.replace(keys, revoked=keys._revoked(account, user))
        earlier = {known: users for known, users in self.earlier.items() if known != entry}
        return msgspec.structs.replace(keys, earlier=earlier)

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
    return keys_in(read_secret(path), str(path))


def keys_in(data: bytes, where: str) -> LabKeys:
    """Return the keys in the bytes of a file; errors as `load_lab`."""
    try:
        keys = msgspec.json.decode(data, type=LabKeys)
    except msgspec.DecodeError as error:
        raise Refused(where, f"no keys of a lab: {error}", code="creds") from None
    if keys.version != 1:
        raise Refused(where, f"version {keys.version}, supported 1", code="creds")
    return keys


def _public_of(creds: Credentials) -> str:
    return str(claims_of(creds.jwt)["sub"])
