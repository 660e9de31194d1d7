"""PURE: reports of consoles -> events."""

from typing import get_args

from tshrag_common.ids import AgentId, Fence
from tshrag_common.reports import ConsoleSigned
from tshrag_common.signs import SignKind
from tshrag_controller.core.console_events import DutSigned
from tshrag_controller.core.decision import Decision

TEXT_MOST = 200
_KINDS = frozenset(get_args(SignKind))


def on_signed(decision: Decision, agent: AgentId, report: ConsoleSigned) -> None:
    """Keep what the console of a DUT told, with the job that had the DUT then."""
    if report.sign not in _KINDS:  # of an agent that is newer than we are
        return
    attempt = decision.lab.attempts.get(Fence(report.fence))
    is_here = attempt is not None and attempt.dut == report.dut
    decision.happen(
        DutSigned(
            agent=agent,
            dut=report.dut,
            sign=report.sign,
            text=report.text[:TEXT_MOST],
            boot=report.boot,
            seen_at=report.at,
            fence=Fence(report.fence),
            job=attempt.job if attempt is not None and is_here else None,
        )
    )
