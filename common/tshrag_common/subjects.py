"""Every NATS subject of the lab, spelled once.

    lab.v1.log                 leader -> standbys      stream LOG, the truth
    lab.v1.checkpoint          leader -> whoever leads stream CHECKPOINT, where one is
    lab.v1.ctl.hb              controllers             pulses of all of them, may be lost
    lab.v1.ctl.lead            controller -> leader    answered: does anybody lead?
    lab.v1.ctl.keys            controller -> the first answered: the keys of the lab, sealed
    lab.v1.agent.<agent>.cmd   leader -> agent         signed, may be lost, a Sync heals
    lab.v1.agent.<agent>.hb    agent -> leader         answered: leases, confirm
    lab.v1.agent.<agent>.ev    agent -> leader         stream EV, reports, never lost
    lab.v1.agent.<agent>.met   agent -> ingest         stream MET, samples in batches
    lab.v1.met.<part>.<agent>  (how MET stores them)   one consumer a partition
    lab.v1.agent.<agent>.logs  agent -> archive        stream LOGS, output, bounded
    lab.v1.agent.<agent>.blob  agent -> controller     answered: loads down, artifacts up
    lab.v1.agent.<agent>.tty   agent -> controller     live bytes of a held console
    lab.v1.gang.<to>.<agent>   agent -> agent <to>     what jobs of a gang say, sent again
    lab.v1.req.<org>.<verb>    people -> controller    answered: the one API
    lab.v1.ui.<org>.…          controller -> people    what they watch
    lab.v1.chan.in.<org>.<person>.<agent>.<session>    people -> agent, bytes of a channel
    lab.v1.chan.out.<org>.<person>.<agent>.<session>   agent -> that person, the way back

The agent stands before what it says, so that NATS permissions fence it in. What a stream
stores has no run, job or fence in its subject: a server remembers every subject. No other
module may hold a string that begins with the root; tests/test_house.py looks.

Where the server has accounts it adds the org itself: a person says ``lab.v1.req.<verb>`` and hears
``lab.v1.ui.…``, and `org` is None in what follows. On a plain server the client puts the org.
Controllers always see the org. A builder refuses (``invalid_id``) a token that is no name.
"""

from typing import Literal, get_args

from tshrag_common.errors import InvalidId, shown
from tshrag_common.ids import AgentId, OrgId, agent_id, org_id, token

ROOT = "lab.v1"
MAX_SUBJECT_BYTES = 256
MET_PARTITIONS = 8

AgentSays = Literal["ev", "met", "logs", "hb", "blob", "tty"]
AGENT_SAYS: tuple[AgentSays, ...] = get_args(AgentSays)
"""All that an agent may publish; grows on purpose only: export, import and template follow."""

ANY = "*"


def log() -> str:
    return f"{ROOT}.log"


def checkpoint() -> str:
    return f"{ROOT}.checkpoint"


def ctl_heartbeat() -> str:
    return f"{ROOT}.ctl.hb"


def ctl_keys() -> str:
    return f"{ROOT}.ctl.keys"


def ctl_lead() -> str:
    return f"{ROOT}.ctl.lead"


def command(agent: AgentId) -> str:
    return f"{ROOT}.agent.{token('agent', agent)}.cmd"


def any_command() -> str:
    return f"{ROOT}.agent.*.cmd"


def said(agent: AgentId, kind: AgentSays) -> str:
    """Return where `agent` says things of `kind`."""
    return f"{ROOT}.agent.{token('agent', agent)}.{kind}"


def any_said(kind: AgentSays) -> str:
    """Return the pattern of what all agents say of `kind`."""
    return f"{ROOT}.agent.*.{kind}"


def samples(partition: int | None = None) -> str:
    """Return the pattern of stored sample batches: of one partition, or of all."""
    return f"{ROOT}.met.{ANY if partition is None else partition}.*"


def samples_transform() -> str:
    """Return what the server makes of ``…agent.*.met``: the agent decides the partition."""
    return f"{ROOT}.met.{{{{partition({MET_PARTITIONS},1)}}}}.{{{{wildcard(1)}}}}"


def req(org: OrgId | None, verb: str) -> str:
    """Return where a request is asked; `org` is None where the server adds it."""
    return f"{ROOT}.req.{_org(org)}{token('verb', verb)}"


def any_req(org: OrgId | None = None) -> str:
    """Return the pattern of the requests of `org`, or of everybody."""
    return f"{ROOT}.req.{_org(org)}>"


def req_verb(verb: str) -> str:
    """Return the pattern of the requests of everybody by one verb, as a controller hears them."""
    return f"{ROOT}.req.{ANY}.{token('verb', verb)}"


def ui(org: OrgId | None, *parts: str) -> str:
    """Return where people of `org` hear news; ``ui(org, "run", run)``. Ids are allowed here."""
    return f"{ROOT}.ui.{_org(org)}" + ".".join(token("news", part) for part in parts)


def any_ui(org: OrgId | None, *parts: str) -> str:
    """Return the pattern of all news of `org` that begin with `parts`."""
    return ".".join([f"{ROOT}.ui", *_list(org), *(token("news", part) for part in parts), ">"])


def agent_of(subject: str) -> tuple[AgentId, str]:
    """Return who said it and of which kind; stored samples are of kind ``met``.

    Raises:
        InvalidId: no agent says that.

    """
    match subject.removeprefix(ROOT + ".").split("."):
        case ["agent", agent, kind] if subject.startswith(ROOT):
            return agent_id(agent), kind
        case ["met", _, agent] if subject.startswith(ROOT):
            return agent_id(agent), "met"
    raise InvalidId("subject", f"{shown(subject)} is nothing that an agent says")


def req_of(subject: str) -> tuple[OrgId, str]:
    """Return org and verb of a request as a controller sees it.

    Raises:
        InvalidId: it is no request, or it names an org of its own behind the one it has.

    """
    match subject.removeprefix(ROOT + ".").split("."):
        case ["req", org, verb] if subject.startswith(ROOT):
            return org_id(org), token("verb", verb)
    raise InvalidId("subject", f"{shown(subject)} is no request")


def ui_of(subject: str, org: OrgId | None) -> tuple[str, ...]:
    """Return the parts of news that a person of `org` heard (None where the server has accounts).

    Raises:
        InvalidId: these are no news of that org.

    """
    begins = f"{ROOT}.ui.{_org(org)}"
    if not subject.startswith(begins):
        raise InvalidId("subject", f"{shown(subject)} is no news of this org")
    return tuple(subject[len(begins) :].split("."))


def channel_in(org: OrgId | None, person: str, agent: AgentId, session: str) -> str:
    """Return where `person` speaks to `agent` on a channel."""
    return f"{ROOT}.chan.in.{_org(org)}{_channel(person, agent, session)}"


def channel_out(org: OrgId | None, person: str, agent: AgentId, session: str) -> str:
    """Return where `agent` speaks to `person` on a channel."""
    return f"{ROOT}.chan.out.{_org(org)}{_channel(person, agent, session)}"


def channels_to(agent: AgentId) -> str:
    """Return the pattern of all that is said to `agent` on channels."""
    return f"{ROOT}.chan.in.*.*.{token('agent', agent)}.*"


def channel_answers(org: OrgId | None, person: str | None, session: str) -> str:
    """Return what a person hears on a channel; without accounts nobody knows his name yet."""
    who = ANY if person is None else token("person", person)
    return f"{ROOT}.chan.out.{_org(org)}{who}.*.{token('session', session)}"


def channel_of(subject: str) -> tuple[OrgId, str, AgentId, str]:
    """Return org, person, agent and session of what an agent hears on a channel.

    Raises:
        InvalidId: it is none.

    """
    match subject.removeprefix(ROOT + ".").split("."):
        case ["chan", "in", org, person, agent, session] if subject.startswith(ROOT):
            return org_id(org), token("person", person), agent_id(agent), token("session", session)
    raise InvalidId("subject", f"{shown(subject)} is no channel")


def any_channel(way: Literal["in", "out"], org: OrgId | None = None) -> str:
    """Return the pattern of all channels of `org`, or of everybody, in one direction."""
    return f"{ROOT}.chan.{way}.{_org(org)}>"


def may_exchange(agent: str) -> tuple[str, str]:
    """Return what `agent` may publish and hear on channels; it may be a template."""
    return f"{ROOT}.chan.out.*.*.{agent}.*", f"{ROOT}.chan.in.*.*.{agent}.*"


def person_exchanges(person: str) -> tuple[str, str]:
    """Return what `person` may publish and hear on channels; the server adds the org."""
    return f"{ROOT}.chan.in.{person}.*.*", f"{ROOT}.chan.out.{person}.*.*"


def gang(to: AgentId, of: AgentId) -> str:
    """Return where the agent `of` says to the agent `to` what jobs of a gang say."""
    return f"{ROOT}.gang.{token('agent', to)}.{token('agent', of)}"


def any_gang(to: AgentId) -> str:
    """Return the pattern of what all agents say to `to` for jobs of gangs."""
    return f"{ROOT}.gang.{token('agent', to)}.*"


def gang_of(subject: str) -> tuple[AgentId, AgentId]:
    """Return to which agent this is said, and by which.

    Raises:
        InvalidId: it is nothing that agents say to each other.

    """
    match subject.removeprefix(ROOT + ".").split("."):
        case ["gang", to, of] if subject.startswith(ROOT):
            return agent_id(to), agent_id(of)
    raise InvalidId("subject", f"{shown(subject)} is nothing between agents")


def may_mail(agent: str) -> tuple[str, str]:
    """Return what `agent` may publish and hear for jobs of gangs; it may be a template."""
    return f"{ROOT}.gang.*.{agent}", f"{ROOT}.gang.{agent}.*"


def may_publish(agent: str) -> tuple[str, ...]:
    """List the subjects that `agent`, and it alone, may publish on; its commands are not.

    `agent` may be a template of the server, so it is not checked here.
    """
    return tuple(f"{ROOT}.agent.{agent}.{kind}" for kind in AGENT_SAYS)


def may_hear(agent: str) -> tuple[str, ...]:
    """List what `agent` may subscribe to beside its inbox."""
    return (f"{ROOT}.agent.{agent}.cmd",)


def inbox_prefix(name: str) -> str:
    """Return where answers to the client `name` go; rights fence it in by that name."""
    return f"_INBOX_{name}"


def account_connections(account: str) -> str:
    """Return where the server tells of CONNECT and DISCONNECT in `account` (a public key)."""
    return f"$SYS.ACCOUNT.{account}.*"


def server_ping(kind: str) -> str:
    """Return where SYS asks the servers for a page of theirs, such as ``JSZ`` or ``HEALTHZ``."""
    return f"$SYS.REQ.SERVER.PING.{kind}"


CLAIMS_UPDATE = "$SYS.REQ.CLAIMS.UPDATE"
"""Where the server takes a new JWT of an account; only SYS may ask."""


def _channel(person: str, agent: AgentId, session: str) -> str:
    names = (token("person", person), token("agent", agent), token("session", session))
    return ".".join(names)


def _org(org: OrgId | None) -> str:
    return "" if org is None else token("org", org) + "."


def _list(org: OrgId | None) -> list[str]:
    return [] if org is None else [token("org", org)]
