"""Ids: generated, unique, sortable, and safe in a subject, a path and a shell.

What people name (agents, DUTs, orgs) is a *token*: ``[a-z0-9][a-z0-9_-]{0,62}``. What the lab
makes carries a prefix and a ULID in lower case (48 bits of milliseconds, 80 bits of chance).
"""

import re
from typing import Annotated, NewType

import msgspec

from tshrag_common.errors import InvalidId, shown

OrgId = NewType("OrgId", str)
RunId = NewType("RunId", str)
JobId = NewType("JobId", str)
AgentId = NewType("AgentId", str)
DutId = NewType("DutId", str)
Epoch = NewType("Epoch", int)
Fence = NewType("Fence", int)
"""(sequence of the frame of the assignment, index in it), packed so that order is the order."""

WHOLE = msgspec.Meta(ge=-(1 << 62), le=1 << 62)
Whole = Annotated[int, WHOLE]
"""A number off a wire that every store takes: SQLite ends at 63 bits, msgpack at 64."""

DEFAULT_ORG = OrgId("default")
THE_LAB = "lab"
"""By whom a run is that nobody has submitted: a health check, a teardown. No person has it."""
TOKEN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
FENCES_PER_FRAME = 1 << 14

_TOKEN = re.compile(TOKEN)
_ULID = "0123456789abcdefghjkmnpqrstvwxyz"
_RUN = re.compile(rf"^run-[{_ULID}]{{26}}$")
_JOB = re.compile(rf"^job-[{_ULID}]{{26}}-[0-9]{{3,6}}$")


def ulid(now_ms: int, chance: int) -> str:
    """Return 26 characters that sort by `now_ms`; `chance` is 80 random bits."""
    number = (now_ms & ((1 << 48) - 1)) << 80 | (chance & ((1 << 80) - 1))
    return "".join(_ULID[(number >> shift) & 31] for shift in range(125, -1, -5))


def token(kind: str, text: str) -> str:
    """Return `text` when it may be a name; `kind` says of what, for the error."""
    if not _TOKEN.fullmatch(text) or text.endswith("\n"):
        fix = "use a-z, 0-9, '_' and '-', at most 63, and begin with a letter or a digit"
        raise InvalidId(kind, f"{shown(text)} is no name", fix)
    return text


def org_id(text: str) -> OrgId:
    return OrgId(token("org", text))


def agent_id(text: str) -> AgentId:
    return AgentId(token("agent", text))


def dut_id(text: str) -> DutId:
    return DutId(token("dut", text))


def run_id(text: str) -> RunId:
    if not _RUN.fullmatch(text):
        raise InvalidId("run", f"{shown(text)} is no run id", "it looks like run-01j9…")
    return RunId(text)


def job_id(text: str) -> JobId:
    if not _JOB.fullmatch(text):
        raise InvalidId("job", f"{shown(text)} is no job id", "it looks like job-01j9…-001")
    return JobId(text)


def new_run(now_ms: int, chance: int) -> RunId:
    return RunId("run-" + ulid(now_ms, chance))


def job_of(run: RunId, serial: int) -> JobId:
    """Return the id of job number `serial` (from 1) of `run`: no chance in it."""
    return JobId(f"job-{run[4:]}-{serial:03d}")


def run_of(job: JobId) -> RunId:
    """Return the run that `job` belongs to."""
    return RunId("run-" + job[4:30])


def serial_of(job: JobId) -> int:
    return int(job[31:])


def serial_name(job: JobId) -> str:
    """Return the name of the job's directory and of T's records: ``JID_001``."""
    return f"JID_{job[31:]}"


def fence(sequence: int, index: int) -> Fence:
    """Return the fence of assignment `index` in the frame with LOG sequence `sequence`."""
    if not 0 <= index < FENCES_PER_FRAME:
        raise ValueError(f"assignment {index} in one frame")
    return Fence(sequence * FENCES_PER_FRAME + index)
