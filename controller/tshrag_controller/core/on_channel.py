"""PURE: reports of channels -> events."""

from tshrag_common.ids import AgentId, Fence
from tshrag_common.reports import ChannelTold
from tshrag_controller.core.channel_events import ChannelNoted
from tshrag_controller.core.decision import Decision

TEXT_MOST = 300


def on_told(decision: Decision, agent: AgentId, report: ChannelTold) -> None:
    """Keep who opened or closed what."""
    lease = decision.lab.people.leases.get(Fence(report.fence)) if report.fence else None
    decision.happen(
        ChannelNoted(
            agent=agent,
            org=report.org,
            by=report.by,
            session=report.session,
            what=report.what,
            detail=report.detail[:TEXT_MOST],
            phase=report.phase,
            dut=report.dut,
            fence=Fence(report.fence),
            lease=lease.id if lease is not None else "",
            up_bytes=report.up_bytes,
            down_bytes=report.down_bytes,
            end=report.end[:TEXT_MOST],
            told_at=report.at,
        )
    )
