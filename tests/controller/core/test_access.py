import pytest

from tests.controller.core.test_leases import a_lab, held
from tshrag_common.errors import LabError
from tshrag_common.ids import AgentId, DutId, OrgId
from tshrag_controller.core.access import access

DUT = DutId("d1")


def test_a_free_dut_may_be_watched_by_all_and_changed_by_nobody() -> None:
    lab = a_lab("d1").lab
    assert access(lab, OrgId("bolt"), "kim", DUT, None, write=False).fence == 0
    with pytest.raises(LabError, match="tshrag lease take d1") as caught:
        access(lab, OrgId("bolt"), "kim", DUT, None, write=True)
    assert caught.value.code == "no_lease"


def test_the_owner_of_a_lease_and_whom_he_shares_it_with_get_its_fence() -> None:
    one = a_lab("d1")
    lease = held(one, dut="d1", shared=("bolt/kim",))
    org, _, name = lease.owner.partition("/")
    for who in ((org, name), ("bolt", "kim")):
        granted = access(one.lab, OrgId(who[0]), who[1], DUT, None, write=True)
        assert (granted.fence, granted.until) == (lease.fence, lease.until)


def test_the_org_of_the_owner_may_watch_and_no_other() -> None:
    one = a_lab("d1")
    lease = held(one, dut="d1")
    org = lease.owner.partition("/")[0]
    assert access(one.lab, OrgId(org), "ada", DUT, None, write=False).fence == 0
    with pytest.raises(LabError, match=f"{lease.owner} has its lease"):
        access(one.lab, OrgId(org), "ada", DUT, None, write=True)
    with pytest.raises(LabError) as caught:
        access(one.lab, OrgId("bolt"), "kim", DUT, None, write=False)
    assert caught.value.code == "not_holder"


def test_what_is_not_there_is_named() -> None:
    lab = a_lab("d1").lab
    for dut, host, code in (
        (DutId("d2"), None, "unknown_dut"),
        (None, AgentId("a7"), "unknown_agent"),
        (None, None, "channel_target"),
    ):
        with pytest.raises(LabError) as caught:
            access(lab, OrgId("bolt"), "kim", dut, host, write=False)
        assert caught.value.code == code
