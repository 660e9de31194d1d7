"""How a person gives up an attempt whose agent is away: what he asks, what he is told."""

from typing import Annotated

import msgspec

MOST_REASON = 500


class Resolve(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Give up an attempt: a job, ``JOB.N`` or a fence. Without ``lost`` only tell what it means.

    With ``power_cycle`` the controller first switches its DUT off and on, and sees both.
    """

    attempt: str
    lost: bool = False
    reason: Annotated[str, msgspec.Meta(max_length=MOST_REASON)] = ""
    power_cycle: bool = False


class ResolveAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was given up, or would be. ``gives_up_at``: when that would happen by itself."""

    job: str
    attempt: int
    fence: int
    agent: str
    agent_state: str
    state: str  # of the attempt
    frees: str
    dut: str = ""
    job_open: bool = True  # it gets another attempt, or ends in error
    gives_up_at: int = 0
    done: bool = False
    by: str = ""
