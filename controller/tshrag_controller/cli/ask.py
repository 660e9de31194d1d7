"""Ask the lab one thing, or follow it for a while; what is wrong becomes one line."""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tshrag_common import ids, requests as r
from tshrag_common.client import Client, open_client
from tshrag_common.errors import DeadlineExceeded, InvalidId, LabError, NotFound, Unreachable
from tshrag_common.views import JobView
from tshrag_controller.cli.context import Connection

T = TypeVar("T")

CONNECT_S = 4.0
HEARD_S = 5.0
LAST = "last"

_SERIAL = re.compile(r"(.+)[:/](?:JID_)?([0-9]{1,6})")


def ask(connection: Connection, question: Callable[[Client], Awaitable[T]]) -> T:
    """Connect, ask, close. An error of the lab comes out as itself, never in a group."""
    return asyncio.run(_asked(connection, question))


async def _asked(connection: Connection, question: Callable[[Client], Awaitable[T]]) -> T:
    try:
        async with open_client(
            connection.url.value,
            name="cli",
            credentials=connection.credentials or None,
            org=connection.org_id,
            ca=connection.ca or None,
            within_s=CONNECT_S,
        ) as client:
            await _heard(client)
            return await question(client)
    except BaseExceptionGroup as group:
        raise _inner(group) from None
    except Unreachable as error:
        raise _with_fix(error, connection) from None


async def _heard(client: Client) -> None:
    """Find out soon whether a controller is there at all; one that is only slow is awaited."""
    with contextlib.suppress(DeadlineExceeded):
        await client.ask("health", r.Nothing(), r.HealthAnswer, HEARD_S)


def _inner(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one error in a group, however deep; an error of the lab goes first."""
    found: list[BaseException] = []
    waiting: list[BaseException] = [group]
    while waiting:
        each = waiting.pop(0)
        if isinstance(each, BaseExceptionGroup):
            waiting.extend(each.exceptions)
        else:
            found.append(each)
    return next((each for each in found if isinstance(each, LabError)), found[0])


def _with_fix(error: Unreachable, connection: Connection) -> Unreachable:
    if error.code != "nats" or error.fix:
        return error
    fix = (
        f"start the lab with 'tshrag up', or name another by --url (this one: {_said(connection)})"
    )
    return Unreachable(error.where, error.what, fix, code=error.code)


def _said(connection: Connection) -> str:
    return connection.url.origin


async def run_named(client: Client, text: str) -> str:
    """Return the run that `text` names: its id, or ``last`` for the newest one.

    What the lab does by itself is not the last that anybody has submitted.

    Raises:
        InvalidId: it names one job of a run.

    """
    if found := _SERIAL.fullmatch(text):
        raise InvalidId("run", f"{text} is a job", f"name its run, as {found[1]}")
    if text != LAST:
        return text
    answer = await client.runs(r.ListRuns(limit=1, people=True))
    if not answer.runs:
        raise NotFound("run", LAST)
    return answer.runs[0].id


async def thing_named(client: Client, text: str) -> str:
    """Return the run or job that `text` names; ``last:2`` is job 2 of the newest run."""
    found = _SERIAL.fullmatch(text)
    if found is None:
        return await run_named(client, text)
    run = ids.run_id(await run_named(client, found[1]))
    return ids.job_of(run, int(found[2]))


async def job_named(client: Client, text: str) -> str:
    """Return the job that `text` names.

    Raises:
        InvalidId: it names a run of several jobs.

    """
    name = await thing_named(client, text)
    if name.startswith("job-"):
        return name
    run = (await client.run(name)).run
    if run.total == 1:
        return ids.job_of(ids.run_id(run.id), 1)
    fix = f"name one of its {run.total} jobs, as {text}:1; 'tshrag status {text}' lists them"
    raise InvalidId("job", f"{text} is a run", fix)


async def all_jobs(client: Client, run: str, most: int = 10_000) -> list[JobView]:
    """Return the jobs of a run, page by page."""
    jobs: list[JobView] = []
    while len(jobs) < most:
        page = await client.jobs(r.ListJobs(id=run, limit=200, offset=len(jobs)))
        jobs += page.jobs
        if not page.more:
            break
    return jobs
