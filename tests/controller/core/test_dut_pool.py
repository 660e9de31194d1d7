"""The index of idle places gives what a look at every place would give, in any lab."""

import pytest

from tests.support.lab_drill import history
from tshrag_controller.core.places import Places, free_duts, is_shunned


@pytest.mark.parametrize("seed", range(30))
def test_the_first_of_a_pool_is_the_best_of_all_free_duts(seed: int) -> None:
    lab = history(3000 + seed, 60).lab
    places = Places(lab)
    for job in lab.jobs.values():
        run = lab.runs[job.run]
        need = run.spec(job).need
        if not need.wants_dut:
            continue
        free = [
            name for name in free_duts(lab, need, run) if not is_shunned(lab, need, job.avoid, name)
        ]
        free.sort(key=lambda name, job=job: (name in job.avoid, name))  # type: ignore[misc]  # bound on purpose
        assert places.duts(lab.need_key(run, job), run, job.avoid, most=1) == free[:1]
        assert places.duts(lab.need_key(run, job), run, job.avoid, most=3) == free[:3]
