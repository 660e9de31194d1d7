"""The keys of the lab on this machine: issue a file for an agent or a person, revoke it.

Only who owns the lab's state folder can do this: the seeds lie there and nowhere else. Two at a
time wait for each other, or one would forget what the other has issued.
"""

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tshrag_common.errors import NotFound, Refused, Unavailable
from tshrag_common.ids import THE_LAB, AgentId, OrgId, agent_id, org_id, token
from tshrag_common.keys import Bundle, read_bundle
from tshrag_common.labkeys import LabKeys, load_lab
from tshrag_controller.cli.context import OWN_BUNDLE

KEYS = "keys.json"
PUSH_S = 30.0
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Keyring:
    """The keys in the state folder, while they are held."""

    def __init__(self, state: Path, url: str = "") -> None:
        self._path = state / KEYS
        self._state = state
        self.keys = load_lab(self._path)
        self._own = read_bundle(state / OWN_BUNDLE)
        self.url = url or self._own.url

    @property
    def is_plain(self) -> bool:
        """Tell whether the bus has no accounts: then a file names a server and carries no right."""
        return not self._own.creds

    @property
    def is_loopback(self) -> bool:
        return any(f"//{host}" in self.url for host in _LOOPBACK)

    def enroll(self, name: str) -> Bundle:
        """Return the file for the agent `name`; an earlier one stays valid until it is revoked."""
        agent = agent_id(name)
        if self.is_plain:
            return self.keys.plain_agent(agent, self.url)
        keys, bundle = self.keys.with_agent(agent, self.url, ca=self._own.ca)
        self._save(keys)
        return bundle

    def add_person(self, name: str, org: OrgId, role: str = "") -> Bundle:
        """Return the file for a person of `org`; a new org gets its account in the server."""
        if name == THE_LAB:
            what = f"{name!r} is what the lab calls itself"
            raise Refused("name", what, "take another name", code="reserved_name")
        if self.is_plain:
            person = token("person", name)
            return Bundle(kind="person", name=person, org=org_id(org), url=self.url)
        known = self.keys
        keys, bundle = known.with_org(org).with_person(
            name, org, self.url, ca=self._own.ca, role=role
        )
        self._save(keys)
        if org not in known.orgs:
            self._push()
        return bundle

    def rotate_agent(self, name: str) -> Bundle:
        """Return a new file for an agent; the one before is good until `end_rotation`."""
        agent = AgentId(name)
        if not self.is_plain and agent not in self.keys.agents:
            raise NotFound("agent", name, self.keys.agents)
        self.keys = self.keys.with_new_mac(agent)
        if self.is_plain:
            self._save(self.keys)
        return self.enroll(name)

    def end_rotation(self, name: str) -> None:
        """Revoke what an agent was issued before the last time."""
        self._revoke(self.keys.without_earlier_agent(AgentId(name)))

    def rotate_person(self, name: str, org: OrgId, role: str) -> Bundle:
        if not self.is_plain and f"{org}/{name}" not in self.keys.people:
            raise NotFound("person", f"{org}/{name}", self.keys.people)
        return self.add_person(name, org, role)

    def end_rotation_of_person(self, name: str, org: OrgId) -> None:
        self._revoke(self.keys.without_earlier_person(name, org))

    def next_controller(self) -> None:
        """Make the next key by which commands are signed; nothing is signed by it yet."""
        self._save(self.keys.with_next_controller())

    def change_controller(self) -> None:
        self._save(self.keys.with_controller_changed())

    def add_controller(self, name: str) -> Bundle:
        """Return the file for another controller: whoever has it is this lab."""
        return self.keys.controller_bundle(name, self.url, plain=self.is_plain, ca=self._own.ca)

    def revoke_agent(self, name: str) -> None:
        self._revoke(self.keys.without_agent(AgentId(name)))

    def revoke_person(self, name: str, org: OrgId) -> None:
        self._revoke(self.keys.without_person(name, org))

    def _revoke(self, keys: LabKeys) -> None:
        if self.is_plain:
            fix = "give the bus accounts; see docs/how-to/secure-the-bus.md"
            raise Refused("", "a bus without accounts cannot shut anybody out", fix, code="plain")
        self._save(keys)
        self._push()

    def _save(self, keys: LabKeys) -> None:
        keys.save(self._path)
        self.keys = keys

    def _push(self) -> None:
        """Have the running server take the accounts; the keys are saved, so it may be repeated."""
        words = (sys.executable, "-m", "tshrag_controller.nats_server.push")
        try:
            done = subprocess.run(
                (*words, str(self._state), self._own.url),
                capture_output=True,
                text=True,
                timeout=PUSH_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _unpushed(f"no answer within {PUSH_S:g} s") from None
        if done.returncode:
            raise _unpushed(done.stderr.strip() or f"exit {done.returncode}")


@contextmanager
def keyring(state: Path, url: str = "") -> Iterator[Keyring]:
    """Yield the keys of the lab on this machine; nobody else changes them meanwhile.

    Raises:
        Refused: there is no lab here (``no_keys``), its files are not readable by us alone, or its
            keys are issued on another box (``keys_elsewhere``): two would not know of each other.

    """
    if not (state / KEYS).is_file() or not (state / OWN_BUNDLE).is_file():
        fix = "run it where 'tshrag up' or the controller runs, or name the folder by TSHRAG_STATE"
        raise Refused(str(state), "no keys of a lab", fix, code="no_keys")
    if (state / "joined").exists():
        fix = f"run it on the box of the first controller, or remove {state}/joined to move here"
        raise Refused(
            str(state), "keys of this lab are issued elsewhere", fix, code="keys_elsewhere"
        )
    with (state / "keys.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Keyring(state, url)


def _unpushed(why: str) -> Unavailable:
    fix = "the keys are saved; the next start of the controller pushes them"
    return Unavailable("", f"the server has not taken the accounts ({why})", fix, code="not_pushed")
