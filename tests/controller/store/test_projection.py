import asyncio
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import ORG
from tests.support.lab_drill import Drill, history
from tshrag_common.ids import OrgId
from tshrag_common.requests import ListJobs
from tshrag_common.states import JOB, JobCause
from tshrag_common.views import JobView
from tshrag_controller.store import queries
from tshrag_controller.store.own_counters import FIRST_COUNT
from tshrag_controller.store.projection import JOB_AFTER
from tshrag_controller.store.schema import PROJECTION
from tshrag_controller.store.store import Store

TABLES = ("runs", "specs", "jobs", "attempts", "timeline", "counters", "spools", "meta")


def everything(db: sqlite3.Connection) -> dict[str, list[Any]]:
    found = {name: db.execute(f"SELECT * FROM {name}").fetchall() for name in TABLES}
    return {name: sorted(rows, key=repr) for name, rows in found.items()}


def held_against(drill: Drill, db: sqlite3.Connection) -> None:
    """Compare what the projection says with what the Lab knows, and with all that has ended."""
    rows = db.execute("SELECT r.id, j.serial, j.state FROM jobs j JOIN runs r ON r.no=j.run")
    states = {f"job-{run[4:]}-{serial:03d}": state for run, serial, state in rows}
    for job in drill.lab.jobs.values():
        assert states[job.id] == job.state
    for name, final in drill.final.items():
        assert states[name] == final
    runs = dict(db.execute("SELECT id, state FROM runs").fetchall())
    assert len(runs) == drill.lab.admitted
    for run in drill.lab.runs.values():
        assert runs[run.id] == run.state
    ended = {name for name, state in runs.items() if state not in ("waiting", "running")}
    assert ended >= runs.keys() - drill.lab.runs.keys()
    attempts = dict(db.execute("SELECT fence, state FROM attempts").fetchall())
    for attempt in drill.lab.attempts.values():
        assert attempts[attempt.fence] == attempt.state
    leases = {fence for (fence,) in db.execute("SELECT fence FROM leases")}
    assert sorted(leases | attempts.keys()) == sorted(drill.known_fences)
    spools = dict(db.execute("SELECT agent, upto FROM spools WHERE kind='reports'").fetchall())
    for agent in drill.lab.agents.values():
        assert spools[agent.facts.agent] == agent.applied


def test_every_cause_leads_to_one_state_wherever_it_starts() -> None:
    for moves in JOB.moves.values():
        for cause, state in moves.items():
            assert JOB_AFTER[cause] is state
    assert set(JOB_AFTER) == set(JobCause)


@pytest.mark.parametrize("seed", range(12))
async def test_the_projection_of_any_history_says_what_the_lab_says(
    store: Store, seed: int
) -> None:
    drill = history(1000 + seed, 70)
    await store.project(drill.frames)
    await store.query(lambda db: held_against(drill, db))
    drill.heal()
    await store.project(drill.frames)
    await store.query(lambda db: held_against(drill, db))
    counters = await store.query(queries.counters)
    assert counters["runs"] == drill.lab.admitted
    assert sum(counters.get(f"jobs.{state}", 0) for state in JOB.moves) == counters["jobs"]
    own = await store.query(partial(queries.counters_of, org=ORG))
    assert own == {name: counters[name] for name in own}, "there is one org only"
    assert {"runs", "jobs", "attempts"} <= own.keys()
    assert await store.query(partial(queries.counters_of, org=OrgId("other"))) == {}


async def test_what_an_earlier_build_has_not_counted_for_orgs_is_counted_once(
    tmp_path: Path,
) -> None:
    frames = history(1003, 70).frames
    store = await Store.open(tmp_path)
    await store.project(frames)
    kept = await store.query(partial(queries.counters_of, org=ORG))
    await store.close()
    db = sqlite3.connect(tmp_path / PROJECTION)
    db.execute("DELETE FROM counters WHERE name GLOB '@*'")
    db.executescript(FIRST_COUNT)
    assert queries.counters_of(db, ORG) == kept
    db.close()


async def test_frames_in_halves_or_twice_make_the_same_rows(tmp_path: Path) -> None:
    frames = history(7, 90).frames
    found = []
    for name, parts in {
        "whole": [frames],
        "halves": [frames[: len(frames) // 2], frames[len(frames) // 2 :]],
        "one by one": [[frame] for frame in frames],
        "twice": [frames, frames, frames[5:9]],
    }.items():
        store = await Store.open(tmp_path / name)
        for part in parts:
            await store.project(part)
        assert store.applied == frames[-1][0]
        found.append(await store.query(everything))
        await store.close()
    assert found[1:] == [found[0]] * 3


async def test_a_projection_that_was_deleted_is_made_again_with_the_same_numbers(
    tmp_path: Path,
) -> None:
    frames = history(8, 90).frames
    store = await Store.open(tmp_path)
    await store.project(frames)
    before = await store.query(everything)
    await store.close()
    (tmp_path / "projection.db").unlink()
    again = await Store.open(tmp_path)
    assert again.applied == 0
    await again.project(frames)
    assert await again.query(everything) == before
    await again.close()


async def test_a_failing_call_takes_no_frame_of_its_company_with_it(store: Store) -> None:
    frames = history(9, 60).frames

    def broken(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO meta VALUES ('half', 1)")
        raise sqlite3.OperationalError("database or disk is full")

    gate = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(db: sqlite3.Connection) -> None:
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(5)

    async with asyncio.TaskGroup() as group:
        group.create_task(store._writer.call(slow), name="slow")
        await asyncio.sleep(0.05)
        projected = group.create_task(store.project(frames), name="project")
        failed = group.create_task(_outcome(store, broken), name="broken")
        await asyncio.sleep(0.05)
        gate.set()
    assert projected.done()
    assert "storage_full" in failed.result()
    rows = await store.query(everything)
    assert ("half", 1) not in rows["meta"]
    assert len(rows["runs"]) == sum(
        type(event).__name__ == "RunAdmitted" for _, frame in frames for event in frame.events
    )


async def _outcome(store: Store, write: Any) -> str:
    try:
        await store._writer.call(write)
    except Exception as error:
        return str(getattr(error, "line", error))
    return ""


async def test_jobs_come_in_pages_and_by_state(store: Store) -> None:
    drill = history(10, 90)
    drill.heal()
    await store.project(drill.frames)
    rows = await store.query(lambda db: db.execute("SELECT id, total FROM runs").fetchall())
    run, total = max(rows, key=lambda row: int(row[1]))
    whole = await store.query(lambda db: queries.list_jobs(db, ORG, ListJobs(id=run)))
    assert [job.serial for job in whole.jobs] == list(range(1, total + 1))
    assert not whole.more
    paged: list[JobView] = []
    for offset in range(0, total, 2):
        asked = ListJobs(id=run, limit=2, offset=offset)
        page = await store.query(partial(queries.list_jobs, org=ORG, asked=asked))
        paged += page.jobs
        assert page.more == (offset + 2 < total)
    assert tuple(paged) == whole.jobs
