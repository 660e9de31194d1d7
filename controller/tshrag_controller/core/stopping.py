"""PURE: which attempts of an agent must end: those that nobody wants any more.

A command to end one may be lost like any other. Until the agent has told its end, such an attempt
is named in every Sync, and a Sync follows every heartbeat.
"""

from collections.abc import Iterable

from tshrag_common.ids import AgentId, Fence
from tshrag_common.states import JOB
from tshrag_controller.core.gangs import is_lost_with_mates
from tshrag_controller.core.lab import Lab


def must_end(lab: Lab, fence: Fence) -> bool:
    """Tell whether the attempt, which has not ended, has no job that waits for more of it."""
    attempt = lab.attempts[fence]
    job = lab.jobs[attempt.job]
    over = JOB.is_final(job.state) or job.fence != fence or bool(job.stop)
    return over or is_lost_with_mates(lab, job)


def to_end(lab: Lab, agent: AgentId) -> tuple[Fence, ...]:
    """Return the attempts of `agent` that must end, in order."""
    return tuple(fence for fence in sorted(lab.agents[agent].fences) if must_end(lab, fence))


def wanted(fences: Iterable[Fence], ending: Iterable[Fence]) -> tuple[Fence, ...]:
    """Return the attempts that go on."""
    return tuple(sorted(set(fences) - set(ending)))
