"""When a controller may try to lead: what it has heard decides, and the LOG knows better."""

import pytest

from tshrag_common.ids import Epoch
from tshrag_controller.core.lab import Lab
from tshrag_controller.log.election import DOUBT_S, PATIENCE_S, SILENT_S, Electorate, Pulse, Role


def a_pulse(epoch: int, role: Role = "leader", sequence: int = 9) -> Pulse:
    return Pulse(
        node="other", boot=f"other-{role}", role=role, epoch=Epoch(epoch), sequence=sequence,
        projected=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("silent_s", "lacks", "verdict"),
    [
        (DOUBT_S - 0.1, False, "wait"),
        (DOUBT_S, False, "ask"),
        (SILENT_S, False, "try"),
        (SILENT_S, True, "ask"),
        (SILENT_S + PATIENCE_S, True, "try"),
    ],
)
def test_a_leader_is_waited_for_asked_for_and_replaced(
    silent_s: float, lacks: bool, verdict: str
) -> None:
    electorate = Electorate("own", 0.0)
    electorate.hear(a_pulse(2), 5.0, reached=2)
    assert electorate.verdict(5.0 + silent_s + 0.01, Lab(), lacks) == verdict


def test_a_leader_whose_successor_the_log_has_is_no_leader() -> None:
    """Else whoever did not learn that its own election was taken would wait for it for ever."""
    electorate = Electorate("own", 0.0)
    electorate.hear(a_pulse(2), 5.0, reached=3)
    assert electorate.verdict(5.0, Lab(), False) == "try"
    assert [each.pulse.node for each in electorate.others(5.0)] == ["other"]  # people see it


def test_who_has_all_of_a_leader_that_left_may_lead_at_once() -> None:
    electorate, lab = Electorate("own", 0.0), Lab()
    lab.epoch, lab.sequence = Epoch(2), 8
    electorate.hear(a_pulse(2, "leaving", sequence=9), 0.1)
    assert electorate.verdict(0.1, lab, False) == "wait"
    lab.sequence = 9
    assert electorate.verdict(0.1, lab, False) == "try"
