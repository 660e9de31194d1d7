import pytest
from hypothesis import given, strategies as st

from tests.support.builders import TestLab, a_plan
from tshrag_common.ids import JobId
from tshrag_controller.core.dag import Progress, is_ordered, order
from tshrag_controller.core.lab import Job

graphs = st.integers(1, 12).flatmap(
    lambda size: st.tuples(*(st.sets(st.integers(0, max(node - 1, 0))) for node in range(size)))
)


def a_graph(drawn: tuple[set[int], ...]) -> dict[int, set[int]]:
    return {node: {each for each in before if each < node} for node, before in enumerate(drawn)}


@given(graphs, st.randoms())
def test_every_node_stands_behind_those_it_comes_after(
    drawn: tuple[set[int], ...], chance: st.DataObject
) -> None:
    graph = a_graph(drawn)
    mixed = list(graph.items())
    chance.shuffle(mixed)  # type: ignore[attr-defined]  # hypothesis hands in a random.Random
    found = order(dict(mixed))
    assert sorted(found) == sorted(graph)
    assert is_ordered({node: graph[node] for node in found})


def test_what_is_in_a_circle_or_behind_it_is_left_out() -> None:
    assert order({1: [3], 2: [], 3: [1], 4: [3], 5: [2]}) == [2, 5]


@given(graphs, st.data())
def test_all_is_over_when_all_that_was_ready_has_ended(
    drawn: tuple[set[int], ...], data: st.DataObject
) -> None:
    graph = a_graph(drawn)
    progress = Progress(graph)
    passed: set[int] = set()
    seen: set[int] = set()
    while progress.ready:
        node = data.draw(st.sampled_from(sorted(progress.ready)))
        assert graph[node] <= passed
        seen.add(node)
        if data.draw(st.booleans()):
            passed.add(node)
            assert set(progress.passed(node)) <= progress.ready
        else:
            skipped = progress.failed(node)
            assert not seen & set(skipped)
            seen |= set(skipped)
    assert progress.is_over
    assert seen == set(graph)


@pytest.mark.parametrize("size", [1, 100_000])
def test_a_failure_takes_along_a_chain_of_any_length(size: int) -> None:
    progress = Progress({node: [node - 1] if node else [] for node in range(size)})
    assert progress.failed(0) == list(range(1, size))
    assert progress.is_over


class CountedJobs(dict[JobId, Job]):
    """Jobs of a Lab, and how often one was looked up."""

    looks = 0

    def __getitem__(self, name: JobId) -> Job:
        self.looks += 1
        return super().__getitem__(name)


def test_the_end_of_a_job_is_no_look_at_all_the_others() -> None:
    lab = TestLab()
    lab.hello(slots=4)
    run = lab.submit(a_plan(*[()] * 1000))
    lab.lab.jobs = jobs = CountedJobs(lab.lab.jobs)
    lab.ended(lab.fence(run, 1))
    assert jobs.looks < 100
