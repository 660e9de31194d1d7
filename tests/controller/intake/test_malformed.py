"""What nobody honest sends: set aside with its reason, counted, and the lab goes on."""

import random
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.builders import T0, facts
from tests.support.served_lab import ScriptedAgent, ServedLab, now, served
from tests.support.stored import a_batch, a_series
from tshrag_common import ids, requests as r, subjects, wire
from tshrag_common.bus.messages import Message
from tshrag_common.errors import LabError
from tshrag_common.ids import AgentId, Fence
from tshrag_common.metrics import SampleBatch
from tshrag_common.reports import (
    Accepted,
    AnyReport,
    DutChanged,
    Ended,
    Hello,
    OutputBatch,
    ReportBatch,
    SamplesMessage,
    Started,
)
from tshrag_common.seals import seal_report
from tshrag_common.sources import chunks
from tshrag_controller.answers.asker import Asker
from tshrag_controller.intake.requests import Verb, Verbs


@pytest.fixture
async def lab(tmp_path: Path, nats_url: str) -> AsyncIterator[ServedLab]:
    async with served(tmp_path, nats_url) as made:
        yield made


async def aside(lab: ServedLab, count: int) -> list[str]:
    """Return the reasons of all that was set aside, once there are so many."""
    await lab.set_aside(count)
    path = lab.settings.state / "store" / "projection.db"

    def read() -> list[str]:
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return [str(row[0]) for row in db.execute("SELECT reason FROM set_aside ORDER BY no")]
        finally:
            db.close()

    reasons = read()
    while len(reasons) < count:
        await lab.client.health()
        reasons = read()
    assert len(reasons) == count
    return reasons


async def still_works(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab, "well", journal="well")
    await agent.hello()
    run = await lab.submit(hosts=("well",))
    await agent.run_through(run)
    assert (await lab.client.run(run)).run.state == "passed"


def nonsense() -> list[bytes]:
    chance = random.Random(4242)
    return [
        b"",
        b"\x01",
        b"\x00" * 64,
        b"\x07" + msgspec.msgpack.encode(("a1", "s", 1, [])),
        b"\x01" + msgspec.msgpack.encode({"agent": "a1"}),
        b"\x01" + msgspec.msgpack.encode(("a1", "s", "one", [])),
        b"\x01" + msgspec.msgpack.encode(("a1", "s", 1, [["no_such_tag", 1]])),
        b"\x01" + b"\x91" * 5000,
        b"{" * 5000,
        '{"agent": "\ud800"}'.encode("utf-8", "surrogatepass"),
        chance.randbytes(1000),
        chance.randbytes((1 << 20) - 4096),
    ]


@pytest.mark.parametrize("kind", ["ev", "met", "logs", "hb", "blob"])
async def test_nonsense_of_an_agent_is_set_aside_and_counted(lab: ServedLab, kind: str) -> None:
    agent = ScriptedAgent(lab)
    for data in nonsense():
        await agent.say(kind, data)
    reasons = await aside(lab, len(nonsense()))
    words = {"bad_seal", "bad_message"} if kind == "ev" else {"bad_message"}
    assert {reason.split(":")[0] for reason in reasons} == words
    if kind == "met":
        assert reasons[3] == "bad_message: SamplesMessage: version 7, supported 1"
    await still_works(lab)


async def test_nonsense_under_a_seal_is_set_aside_too(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    for data in nonsense():
        await agent.say("ev", agent.sealed(data))
    reasons = await aside(lab, len(nonsense()))
    assert {reason.split(":")[0] for reason in reasons} == {"bad_message"}
    assert reasons[3] == "bad_message: ReportBatch: version 7, supported 1"
    await still_works(lab)


async def test_subjects_of_no_agent_are_set_aside(lab: ServedLab) -> None:
    for kind in ("ev", "met", "logs", "hb", "blob"):
        good = subjects.said(AgentId("a1"), kind)
        for name in ("A1", "a%201", "x" * 100):
            await lab.bus.publish(good.replace("a1", name), b"x")
    reasons = await aside(lab, 15)
    assert {reason.split(":")[0] for reason in reasons} <= {"invalid_id", "bad_subject"}
    await still_works(lab)


async def test_a_forged_seal_and_the_words_of_another_are_refused(lab: ServedLab) -> None:
    agent, other = ScriptedAgent(lab, "a1"), ScriptedAgent(lab, "a2")
    await agent.hello()
    hello = Hello(at=now(), facts=facts("a2"))
    batch = ReportBatch(agent=AgentId("a2"), spool="s", first_seq=1, reports=(hello,))
    payload = wire.REPORTS.encode(batch)
    await other.say("ev", seal_report(b"k" * 32, AgentId("a2"), payload))
    await other.say("ev", agent.sealed(payload))
    await agent.say("ev", agent.sealed(payload))
    sample = SamplesMessage(agent=AgentId("a2"), spool="s", first_seq=1, batches=())
    await agent.say("met", wire.SAMPLES.encode(sample))
    chunk = OutputBatch(agent=AgentId("a2"), spool="s", first_seq=1, chunks=())
    await agent.say("logs", wire.OUTPUT.encode(chunk))
    reasons = await aside(lab, 5)
    words = sorted(reason.split(":")[0] for reason in reasons)
    assert words == ["bad_seal", "bad_seal", "not_holder", "not_holder", "not_holder"]
    assert [each.facts.agent for each in (await lab.client.agents()).agents] == ["a1"]
    await still_works(lab)


HUGE = (1 << 63) + 5
HOSTILE: dict[str, AnyReport] = {
    "a time beyond all stores": Started(at=HUGE, fence=Fence(1)),
    "a negative time": Accepted(at=-5, fence=Fence(1)),
    "a fence beyond all stores": Accepted(at=1, fence=Fence(HUGE)),
    "a start beyond all stores": Ended(at=1, fence=Fence(1), outcome="passed", started_at=HUGE),
    "a spool beyond all stores": Ended(at=1, fence=Fence(1), outcome="passed", samples_upto=HUGE),
    "a DUT that is no name": DutChanged(at=1, dut=ids.DutId("../../etc"), faulty="x"),
    "a hold beyond all stores": Hello(at=1, facts=facts("a1"), holds=(Fence(HUGE),)),
    "slots without end": Hello(at=1, facts=facts("a1", slots=HUGE)),
}


async def test_numbers_and_names_that_would_break_a_store_do_not_come_in(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    for report in HOSTILE.values():
        batch = ReportBatch(agent=agent.name, spool="s", first_seq=1, reports=(report,))
        await agent.say("ev", agent.sealed(wire.REPORTS.encode(batch)))
    for spool, first in (("", 1), ("s" * 65, 1), ("s\n", 1), ("s", 0), ("s", -1), ("s", HUGE)):
        batch = ReportBatch(agent=agent.name, spool=spool, first_seq=first, reports=())
        await agent.say("ev", agent.sealed(wire.REPORTS.encode(batch)))
    reasons = await aside(lab, len(HOSTILE) + 6)
    assert {reason.split(":")[0] for reason in reasons} == {"bad_message", "invalid_id"}
    await still_works(lab)


async def test_hostile_samples_and_output_do_not_stop_those_who_take_them_in(
    lab: ServedLab,
) -> None:
    agent = ScriptedAgent(lab)
    run = ids.run_id(await lab.submit(park=True))
    series = a_series([1.0])
    batches = [
        SampleBatch(run=run, job=ids.job_of(run, 1), attempt=HUGE, series=(series,)),
        SampleBatch(run=run, job=ids.job_of(run, 1), attempt=-1, series=(series,)),
        SampleBatch(dut="no name; at all", series=(series,)),
    ]
    for batch in batches:
        message = SamplesMessage(agent=agent.name, spool="m", first_seq=1, batches=(batch,))
        await agent.say("met", wire.SAMPLES.encode(message))
    reasons = await aside(lab, len(batches))
    assert {reason.split(":")[0] for reason in reasons} == {"bad_message", "invalid_id"}
    await agent.hello()
    await agent.samples(a_batch(run, series), SampleBatch(run=run, job="job-nonsense", attempt=1))
    await still_works(lab)


async def test_a_batch_of_reports_too_large_for_the_log_is_set_aside(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    stopped = tuple(f"pid {number} {'x' * 60}" for number in range(13_000))
    end = Ended(at=1, fence=Fence(1), outcome="passed", stopped=stopped)
    await agent.report(Hello(at=now(), facts=agent.facts), end)
    (reason,) = await aside(lab, 1)
    assert "> 786432 bytes" in reason
    await still_works(lab)


async def ask(lab: ServedLab, verb: str, data: bytes) -> dict[str, Any]:
    subject = subjects.req(ids.DEFAULT_ORG, verb)
    answer = await lab.bus.request(subject, data, 10)
    found: dict[str, Any] = msgspec.json.decode(answer.data)
    return found


async def test_requests_that_cannot_be_read_are_answered_and_set_aside(lab: ServedLab) -> None:
    for data in (b"\xff\xfe", b"{", b"{" * 5000, b"\x00" * 500):
        error = (await ask(lab, "runs", data))["error"]
        assert error["code"] == "bad_message"
    assert all(reason.startswith("bad_message: request: ") for reason in await aside(lab, 4))
    assert (await ask(lab, "nonsense", b"{}"))["error"]["code"] == "unknown_verb"
    wrong = (await ask(lab, "run", b'{"id": 7}'))["error"]
    assert wrong["problems"] == [
        {"code": "invalid", "where": "id", "what": "Expected `str`, got `int`"}
    ]
    deep = b'{"run": "' + ids.new_run(1, 1).encode() + b'", "profile": ' + b"[" * 20_000
    assert (await ask(lab, "submit", deep + b"]" * 20_000 + b"}"))["error"]["code"] in (
        "invalid", "bad_message",
    )  # fmt: skip
    await still_works(lab)


@pytest.mark.parametrize(
    ("verb", "data"),
    [
        ("runs", b'{"state": "status;DROP"}'),
        ("runs", b'{"limit": -1}'),
        ("runs", b'{"limit": 1000000000}'),
        ("runs", b'{"offset": -1}'),
        ("runs", b'{"offset": 99999999999999999999999}'),
    ],
)
async def test_filters_that_cannot_be_are_named(lab: ServedLab, verb: str, data: bytes) -> None:
    error = (await ask(lab, verb, data))["error"]
    codes = {error["code"], *(each["code"] for each in error.get("problems", ()))}
    assert "filter" in codes, error
    assert "filter: " in f"{error['code']}: {error['message']}"


async def test_what_is_unknown_or_ended_says_so(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    run = await lab.submit()
    await agent.run_through(run)
    job = ids.job_of(ids.run_id(run), 1)
    gone = ids.new_run(1, 1)

    async def said(name: str) -> str:
        try:
            await lab.client.cancel(name)
        except LabError as error:
            return error.line
        return "nothing"

    assert await said(run) == f"already_final: {run}: passed"
    assert await said(job) == f"already_final: {job}: passed"
    assert (await said(ids.job_of(gone, 1))).startswith("unknown_job: ")
    assert (await said(gone)).startswith("unknown_run: ")
    assert (await said(f"job-{run[4:]}-999")).startswith("unknown_job: ")
    assert await said("status;DROP") == "unknown_run: 'status;DROP' is not known"


async def test_reports_that_count_for_nothing_are_counted_by_their_reason(lab: ServedLab) -> None:
    one, two = ScriptedAgent(lab, "a1"), ScriptedAgent(lab, "a2", slots=0)
    await one.hello()
    await two.hello()
    run = await lab.submit(
        {"name": "t", "schedule": {"sequence": [{"command": "a"}, {"command": "b"}]}}
    )
    start = await one.next_start(run)
    await two.report(Ended(at=T0, fence=start.fence, outcome="passed"))
    await one.report(Accepted(at=T0, fence=Fence(7)))
    await one.report(Accepted(at=T0, fence=Fence(1 << 62)))
    await one.ended(start)
    await one.ended(start)
    await one.next_start(run, 2)
    stats = await lab.client.stats()
    refused = {key: count for key, count in stats.counters.items() if "refused" in key}
    assert refused == {
        "reports_refused.not_holder": 1,
        "reports_refused.stale_fence": 1,
        "reports_refused.unknown_job": 1,
        "reports_refused.already_final": 1,
    }


async def test_an_answer_that_no_message_can_hold_is_an_error_with_the_way_out() -> None:
    async def much(asker: Asker, asked: r.Nothing) -> r.LogsAnswer:
        data = b"x" * (1 << 20)
        return r.LogsAnswer(attempt=1, offset=0, next=0, total=0, complete=True, data=data)

    verbs = Verbs({"much": Verb(r.Nothing, much)}, True, True, lambda *_: None)
    message = Message(subjects.req(ids.DEFAULT_ORG, "much"), "", b"", {})
    error = msgspec.json.decode(await verbs.answer(message))["error"]
    assert error["code"] == "too_large"
    assert error["message"].endswith("ask for fewer, by limit and offset")


async def test_a_bug_of_ours_is_an_answer_and_no_end() -> None:
    async def bug(asker: Asker, asked: r.Nothing) -> r.LogsAnswer:
        raise ZeroDivisionError

    verbs = Verbs({"bug": Verb(r.Nothing, bug)}, True, True, lambda *_: None)
    message = Message(subjects.req(ids.DEFAULT_ORG, "bug"), "", b"{}", {})
    assert msgspec.json.decode(await verbs.answer(message))["error"]["code"] == "internal"


async def test_a_blob_request_that_cannot_be_read_is_answered(lab: ServedLab) -> None:
    subject = subjects.said(AgentId("a1"), "blob")
    message = await lab.bus.request(subject, b"\x01nonsense", 5)
    answer = chunks.BLOB_ANSWER.decode(message.data).answer
    assert isinstance(answer, chunks.BlobFailed)
    assert answer.error.code == "bad_message"
