"""A DUT waits for the verdict on what was done with it: words of the LOG (see events.py)."""

from tshrag_common.ids import DutId, JobId, RunId
from tshrag_controller.core.event import Event


class BoardKept(Event, frozen=True, kw_only=True, array_like=True, tag="board_kept"):
    """A job has ended on a DUT that its run keeps as it is, until the verdict at the latest."""

    run: RunId
    dut: DutId
    job: JobId
    attempt: int
    until: int


class BoardLetGo(Event, frozen=True, kw_only=True, array_like=True, tag="board_let_go"):
    """A DUT does not wait for a verdict any more; that of the run lets go of all it keeps."""

    run: RunId
    dut: DutId


FreezeEvent = BoardKept | BoardLetGo
