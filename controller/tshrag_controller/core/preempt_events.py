"""What preemption records: words of the LOG (see events.py)."""

from tshrag_common.ids import AgentId, DutId, Fence, JobId
from tshrag_controller.core.event import Event


class AttemptPreempted(Event, frozen=True, kw_only=True, array_like=True, tag="attempt_preempted"):
    """An attempt is told to end for somebody of higher priority; its job is queued again then."""

    job: JobId
    fence: Fence
    by: str  # the job, the first job of a gang, or the run that takes DUTs for all its jobs
    said: str = ""
    duts: tuple[DutId, ...] = ()  # which all together are for `by`, where it wants several places
    slots: tuple[tuple[AgentId, int], ...] = ()  # of hosts
