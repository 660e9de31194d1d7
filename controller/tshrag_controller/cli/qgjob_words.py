"""The records that `qgjob` shows: runs of ours in TestPilot's words."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from tshrag_common import requests as r
from tshrag_common.views import AttemptView, RunView

STATES: Mapping[str, tuple[str, ...]] = {
    "pending": ("waiting",),
    "queued": ("waiting", "running"),
    "running": ("running", "evaluating"),
    "completed": ("passed",),
    "failed": ("failed", "error", "timeout", "expired"),
    "cancelled": ("cancelled",),
}
"""Their word -> states of a run; `queued` is one whose job has an agent and does not run yet."""
_NOT_YET = ("assigned", "preparing")


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """What `POST /jobs` of TestPilot answers."""

    job_id: str
    status: str
    message: str


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A job in TestPilot's words; instants are ISO 8601 UTC, empty where there is none."""

    job_id: str
    payload: dict[str, Any]
    status: str
    created_at: str
    started_at: str = ""
    completed_at: str = ""
    worker_id: str = ""
    result: str = ""
    error_message: str = ""
    retry_count: int = 0


def status_word(run: RunView) -> str:
    """Return their word for the state of a run."""
    live = sum(run.counts.get(state, 0) for state in ("running", "collecting"))
    if run.state in STATES["queued"] and not live and any(map(run.counts.get, _NOT_YET)):
        return "queued"
    words = (word for word, states in STATES.items() if word != "queued" and run.state in states)
    return next(words, run.state)


def record_of(run: RunView, attempts: tuple[AttemptView, ...] = (), error: str = "") -> Record:
    labels = dict(run.labels)
    payload: dict[str, Any] = {
        "org_id": run.org,
        "app_version_id": labels.pop("app_version_id", ""),
        "test_path": labels.pop("test_path", run.name),
        "target": labels.pop("target", ""),
        "priority": run.priority,
        "metadata": labels,
    }
    newest = attempts[-1] if attempts else None
    return Record(
        job_id=run.id,
        payload=payload,
        status=status_word(run),
        created_at=iso(run.created_at),
        started_at=iso(run.started_at),
        completed_at=iso(run.ended_at),
        worker_id=(newest.dut or newest.agent) if newest is not None else "",
        result=run.state if run.ended_at else "",
        error_message=error or run.reason,
        retry_count=max(0, len(attempts) - 1),
    )


def iso(at: int) -> str:
    return datetime.fromtimestamp(at / 1e6, UTC).isoformat(timespec="seconds") if at else ""


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """What `GET /jobs` of TestPilot answers."""

    jobs: tuple[Record, ...]
    count: int
    more: bool = False


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """What `GET /stats` of TestPilot answers; from counters that are maintained."""

    total_jobs: int
    pending_jobs: int
    running_jobs: int
    completed_jobs: int
    failed_jobs: int
    cancelled_jobs: int
    total_groups: int | None  # setups that were begun; None: they are not for this org
    total_workers: int
    active_workers: int
    success_rate: float | None


def statistics_of(stats: r.StatsAnswer) -> Statistics:
    """Return the counters of a lab in TestPilot's words; a job is a run."""

    def jobs(word: str) -> int:
        return sum(stats.runs.get(state, 0) for state in STATES[word])

    completed, failed = jobs("completed"), jobs("failed")
    away = sum(stats.agents.get(state, 0) for state in ("offline", "lost"))
    return Statistics(
        total_jobs=sum(stats.runs.values()),
        pending_jobs=jobs("pending"),
        running_jobs=jobs("running"),
        completed_jobs=completed,
        failed_jobs=failed,
        cancelled_jobs=jobs("cancelled"),
        total_groups=stats.setups.made if stats.setups is not None else None,
        total_workers=sum(stats.agents.values()),
        active_workers=sum(stats.agents.values()) - away,
        success_rate=completed / (completed + failed) if completed + failed else None,
    )
