"""What an agent and a person can reach on our own JWTs; every refusal is tried from inside."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.nats_server import NatsServer
from tests.support.waiting import wait_until
from tshrag_common import subjects
from tshrag_common.bus.connection import Bus, connect
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.bus.messages import Message
from tshrag_common.errors import LabError, Unavailable
from tshrag_common.ids import AgentId, OrgId
from tshrag_common.keys import Key, claims_of, new_user, parse_creds
from tshrag_common.labkeys import LabKeys, new_lab
from tshrag_common.streams import all_streams
from tshrag_controller.nats_server import accounts
from tshrag_controller.nats_server.accounts import push_accounts

ACME, BOLT = OrgId("acme"), OrgId("bolt")


SESSION = "5" * 32


class Trial:
    """A server with accounts; a controller, two agents, and a person in each of two orgs."""

    def __init__(self, server: NatsServer, keys: LabKeys) -> None:
        self.server, self.keys = server, keys
        self._open: list[Bus] = []

    async def start(self) -> "Trial":
        self.ctl = await self.enter(self.keys.controller_creds("ctl").text)
        self.a1 = await self.agent("a1")
        self.a2 = await self.agent("a2")
        self.acme = await self.person("jo", ACME)
        self.bolt = await self.person("jo", BOLT)
        self.jetstream = JetStream(self.ctl)
        for stream in all_streams():
            await self.jetstream.ensure_stream(stream)
        return self

    async def enter(self, credentials: str) -> Bus:
        bus = await connect(self.server.url, name="x", credentials=credentials, within_s=5)
        self._open.append(bus)
        return bus

    async def agent(self, name: str) -> Bus:
        self.keys, bundle = self.keys.with_agent(AgentId(name), self.server.url)
        return await self.enter(bundle.creds)

    async def person(self, name: str, org: OrgId) -> Bus:
        self.keys, bundle = self.keys.with_person(name, org, self.server.url)
        return await self.enter(bundle.creds)

    async def stop(self) -> None:
        for bus in self._open:
            await bus.close()

    async def stored(self, stream: str) -> dict[str, int]:
        return (await self.jetstream.stream_info(stream, ">")).subjects


@pytest.fixture
async def trial(tmp_path: Path) -> AsyncIterator[Trial]:
    keys = new_lab(ACME, BOLT)
    server = NatsServer(tmp_path, keys)
    await asyncio.to_thread(server.start)
    trial = Trial(server, keys)
    try:
        yield await trial.start()
    finally:
        await trial.stop()
        await asyncio.to_thread(server.stop)


async def refused(bus: Bus, subject: str) -> bool:
    try:
        await bus.request(subject, b"{}", 0.15)
    except Unavailable:
        return True
    return False


async def heard_by(listener: Bus, pattern: str, speaker: Bus, subject: str) -> int:
    """Return how many messages reach `listener` on `pattern` when `speaker` says one."""
    heard: list[Message] = []
    interest = await listener.subscribe(pattern, heard.append)
    await listener.settled()
    await speaker.publish(subject, b"heard")
    await speaker.settled()
    await listener.settled()
    await interest.end()
    return len(heard)


async def answering(bus: Bus, subject: str) -> None:
    """Have `bus` answer on `subject` with what it was asked, and by whom."""
    loop = asyncio.get_running_loop()

    def answer(message: Message) -> None:
        told = json.loads(message.headers.get("Nats-Request-Info", "{}"))
        body = json.dumps({"subject": message.subject, "told": told}).encode()
        tasks.add(task := loop.create_task(bus.respond(message, body)))
        task.add_done_callback(tasks.discard)

    tasks: set[asyncio.Task[None]] = set()
    await bus.subscribe(subject, answer)
    await bus.settled()


async def asked(bus: Bus, subject: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    answer = await bus.request(subject, b"", 5, headers)
    said: dict[str, Any] = json.loads(answer.data)
    return said


async def test_an_agent_reports_and_the_stream_stores_it(trial: Trial) -> None:
    own = JetStream(trial.a1)
    assert await own.publish("lab.v1.agent.a1.ev", b"report", {"Nats-Msg-Id": "1"}) == 1
    assert await own.publish("lab.v1.agent.a1.met", b"samples", {}) == 1
    assert await own.publish("lab.v1.agent.a1.logs", b"output", {}) == 1
    (partition,) = await trial.stored("MET")
    assert partition.startswith("lab.v1.met.")
    ctl, a1 = trial.ctl, trial.a1
    for kind in ("hb", "blob", "tty"):
        assert await heard_by(ctl, f"lab.v1.agent.*.{kind}", a1, f"lab.v1.agent.a1.{kind}") == 1


async def test_a_command_reaches_its_agent_only(trial: Trial) -> None:
    ctl, a1, a2 = trial.ctl, trial.a1, trial.a2
    cmd1, cmd2 = subjects.command(AgentId("a1")), subjects.command(AgentId("a2"))
    assert await heard_by(a1, cmd1, ctl, cmd1) == 1
    assert await heard_by(a2, cmd2, ctl, cmd1) == 0


async def test_the_server_adds_the_org_and_says_who_asks(trial: Trial) -> None:
    await answering(trial.ctl, subjects.any_req())
    said = await asked(trial.acme, subjects.req(None, "submit"))
    assert subjects.req_of(said["subject"]) == ("acme", "submit")
    told = said["told"]
    assert told["acc"] == trial.keys.account_of(ACME)
    assert (told["name_tag"], told["kind"]) == ("jo", "Client")
    assert told["user"] == trial.keys.people["acme/jo"]
    forged = {"Nats-Request-Info": '{"acc":"else","user":"else","name_tag":"else"}'}
    again = await asked(trial.acme, subjects.req(None, "submit"), forged)
    assert {again["told"][k] == told[k] for k in ("acc", "user", "name_tag")} == {True}


async def test_who_names_another_org_stays_in_his_own(trial: Trial) -> None:
    await answering(trial.ctl, subjects.any_req())
    said = await asked(trial.bolt, subjects.req(ACME, "submit"))
    assert said["subject"] == "lab.v1.req.bolt.acme.submit"
    with pytest.raises(LabError):
        subjects.req_of(said["subject"])


async def test_news_reach_their_org_only(trial: Trial) -> None:
    news = subjects.ui(ACME, "run")
    assert await heard_by(trial.acme, subjects.any_ui(None), trial.ctl, news) == 1
    assert await heard_by(trial.bolt, subjects.any_ui(None), trial.ctl, news) == 0


AGENT_MAY_NOT = [
    *(f"lab.v1.agent.a2.{kind}" for kind in ("ev", "met", "hb", "cmd")),
    *("lab.v1.agent.a1.cmd", "lab.v1.log", "lab.v1.met.0.a1"),
    *("lab.v1.req.submit", "lab.v1.req.acme.submit", "$SYS.REQ.CLAIMS.UPDATE"),
    *("$JS.API.INFO", "$JS.API.STREAM.INFO.EV", "$JS.API.STREAM.PURGE.EV"),
    *("$JS.API.STREAM.MSG.GET.EV", "$JS.API.DIRECT.GET.EV.lab.v1.agent.a1.ev"),
    *("$JS.API.CONSUMER.CREATE.EV", "$JS.ACK.EV.c.1.1.1.1.0"),
    *(f"$JS.API.STREAM.{verb}.LOG" for verb in ("CREATE", "UPDATE", "DELETE", "INFO", "PURGE")),
    *(f"$JS.API.STREAM.{verb}.LOG" for verb in ("MSG.DELETE", "MSG.GET", "SNAPSHOT", "RESTORE")),
    *(f"$JS.API.STREAM.{verb}.LOG" for verb in ("LEADER.STEPDOWN", "PEER.REMOVE")),
    *("$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.DIRECT.GET.LOG"),
    *(f"$JS.API.CONSUMER.{verb}.LOG" for verb in ("NAMES", "LIST", "DURABLE.CREATE")),
    *(f"$JS.API.CONSUMER.{verb}.LOG.leader" for verb in ("INFO", "DELETE", "MSG.NEXT", "PAUSE")),
    *("$JS.API.META.LEADER.STEPDOWN", "$JS.API.SERVER.REMOVE", "$JS.API.ACCOUNT.PURGE.x"),
    *("$JS.FC.LOG.c.1", "$KV.x.y", "$O.loads.C.x", "$SYS.REQ.SERVER.PING"),
]


async def test_an_agent_may_publish_nothing_but_its_own(trial: Trial) -> None:
    await answering(trial.ctl, ">")
    for subject in AGENT_MAY_NOT:
        before = len(trial.a1.denied)
        assert await refused(trial.a1, subject), subject
        assert len(trial.a1.denied) > before, subject


async def test_a_person_may_ask_and_nothing_else(trial: Trial) -> None:
    await answering(trial.ctl, ">")
    for subject in (
        *("lab.v1.agent.a1.ev", "lab.v1.agent.a1.cmd", "lab.v1.log", "lab.v1.ui.run"),
        *("$JS.API.INFO", "$SYS.REQ.CLAIMS.UPDATE", "$O.loads.C.x"),
    ):
        assert await refused(trial.acme, subject), subject


@pytest.mark.parametrize(
    "pattern",
    [">", "lab.>", "lab.v1.agent.>", "lab.v1.agent.*.cmd", "lab.v1.agent.a2.cmd", "*.*.*.a2.cmd"],
)
async def test_an_agent_overhears_no_command_of_another(trial: Trial, pattern: str) -> None:
    assert await heard_by(trial.a1, pattern, trial.ctl, "lab.v1.agent.a2.cmd") == 0


@pytest.mark.parametrize("pattern", ["_INBOX.>", "_INBOX_a2.>"])
async def test_an_agent_overhears_no_answer_to_another(trial: Trial, pattern: str) -> None:
    heard: list[Message] = []
    await trial.a1.subscribe(pattern, heard.append)
    await trial.a1.settled()
    await JetStream(trial.a2).publish("lab.v1.agent.a2.ev", b"report", {})
    await trial.a1.settled()
    assert heard == []


async def test_a_reply_subject_forges_nothing(trial: Trial) -> None:
    """Publish rights are not checked on the reply subject: nothing may come of that."""
    await answering(trial.ctl, "lab.v1.agent.*.hb")
    before = {stream: await trial.stored(stream) for stream in ("LOG", "MET")}
    targets = [
        *("lab.v1.log", "lab.v1.req.acme.x"),
        *(f"lab.v1.agent.a2.{kind}" for kind in ("ev", "met", "cmd")),
    ]
    for target in targets:
        for kind in ("hb", "ev", "blob"):  # an answer, a PubAck, nobody
            await trial.a1.publish_for(f"lab.v1.agent.a1.{kind}", b"chosen by a1", target)
    await trial.a1.settled()
    await JetStream(trial.a1).publish("lab.v1.agent.a1.ev", b"the last", {})
    await trial.ctl.settled()
    assert before == {stream: await trial.stored(stream) for stream in ("LOG", "MET")}
    assert list(await trial.stored("EV")) == ["lab.v1.agent.a1.ev"]


async def test_a_role_s_user_that_grants_itself_rights_is_refused(trial: Trial) -> None:
    keys = trial.keys
    rights: dict[str, object] = {"pub": {"allow": [">"]}, "subs": -1, "data": -1}
    own = new_user(Key(keys.agent_role), Key(keys.agents_account).public, "a3", rights)
    with pytest.raises(LabError) as caught:
        await connect(trial.server.url, name="a3", credentials=own.text, within_s=0.5)
    assert caught.value.line.startswith(f"nats: cannot reach {trial.server.url} (credentials")


async def test_credentials_of_another_lab_are_one_line_a_try(trial: Trial) -> None:
    _, bundle = new_lab(ACME).with_agent(AgentId("a1"), trial.server.url)
    said: list[str] = []
    with pytest.raises(LabError):
        await connect(
            trial.server.url, name="a1", credentials=bundle.creds, within_s=4, on_state=said.append
        )
    assert said
    assert all("credentials refused" in line and "next try in" in line for line in said)


async def test_a_revoked_agent_is_closed_at_once_and_others_stay(trial: Trial) -> None:
    system = await trial.enter(trial.keys.system_creds("ctl").text)
    revoked = trial.keys.without_agent(AgentId("a1"))
    await push_accounts(system, revoked)
    await wait_until(trial.a1.closed.is_set)
    assert trial.a2.is_connected
    assert trial.acme.is_connected
    again = await trial.agent("a1")  # enrolled anew
    assert again.is_connected


async def test_a_new_org_works_without_a_restart_and_after_one(trial: Trial) -> None:
    core = OrgId("core")
    trial.keys = trial.keys.with_org(core)
    system = await trial.enter(trial.keys.system_creds("ctl").text)
    await push_accounts(system, trial.keys)
    await answering(trial.ctl, subjects.any_req())
    person = await trial.person("kim", core)
    said = await asked(person, subjects.req(None, "submit"))
    assert said["subject"] == "lab.v1.req.core.submit"
    assert (await asked(trial.acme, subjects.req(None, "x")))["subject"] == "lab.v1.req.acme.x"
    trial.server.keys = trial.keys
    await asyncio.to_thread(trial.server.restart)
    said = await asked(person, subjects.req(None, "submit"))
    assert said["subject"] == "lab.v1.req.core.submit"


async def test_the_system_account_hears_who_comes_and_goes(trial: Trial) -> None:
    system = await trial.enter(trial.keys.system_creds("ctl").text)
    heard: list[Message] = []
    account = Key(trial.keys.agents_account).public
    await system.subscribe(subjects.account_connections(account), heard.append)
    await system.settled()
    agent = await trial.agent("a7")
    await wait_until(lambda: [m for m in heard if m.subject.endswith(".CONNECT")])
    await agent.close()
    await wait_until(lambda: [m for m in heard if m.subject.endswith(".DISCONNECT")])
    told = json.loads(heard[-1].data)["client"]
    assert claims_of(told["jwt"])["name"] == "a7"  # `name` is the client's choice
    assert told["user"] == trial.keys.agents[AgentId("a7")]


async def test_one_connection_has_so_many_subscriptions_and_no_more(trial: Trial) -> None:
    heard: list[Message] = []
    for number in range(accounts.MOST_PERSON_SUBS + 8):
        with contextlib.suppress(LabError):  # the server closes it in the middle
            await trial.acme.subscribe(subjects.ui(None, f"n{number}"), heard.append)
    await wait_until(trial.acme.closed.is_set, 30)
    assert trial.bolt.is_connected
    await answering(trial.ctl, subjects.any_req())
    assert (await asked(trial.bolt, subjects.req(None, "x")))["subject"] == "lab.v1.req.bolt.x"


async def test_an_org_has_so_many_connections_and_no_more(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "MOST_PEOPLE_CONNECTIONS", 3)
    system = await trial.enter(trial.keys.system_creds("ctl").text)
    await push_accounts(system, trial.keys)
    for _ in range(2):
        await trial.person("jo", ACME)
    with pytest.raises(LabError):
        await trial.person("jo", ACME)
    assert trial.acme.is_connected
    assert (await trial.person("jo", BOLT)).is_connected


async def test_a_client_takes_its_name_from_its_credentials(trial: Trial) -> None:
    _, bundle = trial.keys.with_agent(AgentId("a1"), trial.server.url)
    assert trial.a1.name == parse_creds(bundle.creds).name == "a1"
    assert not trial.a1.plain


async def test_bytes_of_a_channel_go_between_a_person_and_an_agent(trial: Trial) -> None:
    said = subjects.channel_in(None, "jo", AgentId("a1"), SESSION)
    as_heard = subjects.channel_in(ACME, "jo", AgentId("a1"), SESSION)
    heard: list[Message] = []
    await trial.a1.subscribe(subjects.channels_to(AgentId("a1")), heard.append)
    await trial.a1.settled()
    await trial.acme.publish(said, b"typed")
    await trial.bolt.publish(said, b"typed in bolt")  # the server puts the org, each his own
    await wait_until(lambda: len(heard) == 2)
    assert {m.subject for m in heard} == {as_heard, as_heard.replace(".acme.", ".bolt.")}
    back = subjects.channel_out(ACME, "jo", AgentId("a1"), SESSION)
    listens = subjects.channel_answers(None, "jo", SESSION)
    assert await heard_by(trial.acme, listens, trial.a1, back) == 1
    assert await heard_by(trial.bolt, listens, trial.a1, back) == 0


async def test_nobody_overhears_a_channel_of_another(trial: Trial) -> None:
    kim = await trial.person("kim", ACME)
    back = subjects.channel_out(ACME, "jo", AgentId("a1"), SESSION)
    for pattern in ("lab.v1.chan.>", "lab.v1.chan.out.>", "lab.v1.chan.out.jo.*.*", ">"):
        assert await heard_by(kim, pattern, trial.a1, back) == 0, pattern
    said = subjects.channel_in(None, "jo", AgentId("a1"), SESSION)
    for pattern in ("lab.v1.chan.>", "lab.v1.chan.in.*.*.*.*", "lab.v1.chan.in.*.*.a1.*"):
        assert await heard_by(trial.a2, pattern, trial.acme, said) == 0, pattern
        assert await heard_by(kim, pattern, trial.acme, said) == 0, pattern


async def test_nobody_speaks_on_a_channel_as_another(trial: Trial) -> None:
    kim = await trial.person("kim", ACME)
    a1, listens = AgentId("a1"), subjects.channel_answers(None, "jo", SESSION)
    forged = subjects.channel_in(None, "jo", a1, SESSION)
    assert await heard_by(trial.a1, subjects.channels_to(a1), kim, forged) == 0
    whole = subjects.channel_in(ACME, "jo", a1, SESSION)
    assert await heard_by(trial.a1, subjects.channels_to(a1), trial.bolt, whole) == 0
    back = subjects.channel_out(ACME, "jo", a1, SESSION)
    assert await heard_by(trial.acme, listens, trial.a2, back) == 0
    assert await heard_by(trial.acme, listens, kim, back) == 0


async def test_agents_speak_to_each_other_under_their_own_names_only(trial: Trial) -> None:
    a1, a2 = AgentId("a1"), AgentId("a2")
    hears = subjects.any_gang(a1)
    assert await heard_by(trial.a1, hears, trial.a2, subjects.gang(a1, a2)) == 1
    assert await heard_by(trial.a1, hears, trial.a2, subjects.gang(a1, AgentId("a3"))) == 0
    for pattern in ("lab.v1.gang.>", "lab.v1.gang.*.*", hears, ">"):
        assert await heard_by(trial.a2, pattern, trial.a2, subjects.gang(a1, a2)) == 0, pattern
    assert await heard_by(trial.a1, hears, trial.acme, subjects.gang(a1, a2)) == 0
    assert await heard_by(trial.acme, "lab.v1.gang.>", trial.a2, subjects.gang(a1, a2)) == 0
