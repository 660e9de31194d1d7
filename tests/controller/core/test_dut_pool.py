"""The index of idle places gives what a look at every place would give, in any lab."""

import pytest

from tests.support.lab_drill import history
from tshrag_common.ids import DutId
from tshrag_common.jobs import Need
from tshrag_controller.core.groups import is_in_place
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.places import Places, free_duts, is_shunned


def rank(
    lab: Lab, need: Need, avoid: tuple[str, ...], name: DutId, now: int
) -> tuple[bool, bool, bool, DutId]:
    """What carries its setup first, what went wrong last, what carries another behind the rest."""
    row = lab.duts[name]
    there = is_in_place(row, need.group, now)
    return (name in avoid, not there, bool(row.dut.carries), name)


@pytest.mark.parametrize("seed", range(30))
def test_the_first_of_a_pool_is_the_best_of_all_free_duts(seed: int) -> None:
    drill = history(3000 + seed, 60)
    lab = drill.lab
    places = Places(lab, drill.now)
    for job in lab.jobs.values():
        run = lab.runs[job.run]
        need = run.spec(job).need
        if not need.wants_dut:
            continue
        free = free_duts(lab, need, run)
        ranks = {name: rank(lab, need, job.avoid, name, drill.now) for name in free}
        free.sort(key=ranks.__getitem__)
        alone = [name for name in free if not is_shunned(lab, need, job.avoid, name)]
        assert places.duts(lab.need_key(run, job), run, job.avoid, most=1) == alone[:1]
        assert places.duts(lab.need_key(run, job), run, job.avoid, most=3) == free[:3]
