"""The index of idle places gives what a look at every place would give, in any lab."""

import pytest

from tests.support.lab_drill import history
from tshrag_controller.core.places import Places, free_duts, is_shunned


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
        free.sort(key=lambda name, job=job: (name in job.avoid, name))  # type: ignore[misc]  # bound on purpose
        alone = [name for name in free if not is_shunned(lab, need, job.avoid, name)]
        assert places.duts(lab.need_key(run, job), run, job.avoid, most=1) == alone[:1]
        assert places.duts(lab.need_key(run, job), run, job.avoid, most=3) == free[:3]
