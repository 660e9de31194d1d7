"""A pool of DUTs gives what a look at every DUT would give, in any lab."""

import pytest

from tests.support.lab_drill import history
from tshrag_controller.core.schedule import DutPool, free_duts


@pytest.mark.parametrize("seed", range(30))
def test_the_first_of_a_pool_is_the_best_of_all_free_duts(seed: int) -> None:
    lab = history(3000 + seed, 60).lab
    for job in lab.jobs.values():
        run = lab.runs[job.run]
        need = run.spec(job).need
        free = free_duts(lab, need, run.id)
        best = min(free, key=lambda name, job=job: (name in job.avoid, name), default=None)  # type: ignore[misc]  # bound on purpose
        assert DutPool(lab, need).first(lab, job) == best
