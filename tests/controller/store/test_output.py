import pytest

from tests.support.stored import StoredLab, output
from tshrag_common import ids
from tshrag_common.errors import InvalidId
from tshrag_common.ids import RunId
from tshrag_controller.store.output import MOST_BYTES, path_of
from tshrag_controller.store.store import Store


async def text(store: Store, run: RunId, offset: int = 0, limit: int = 100) -> bytes:
    return (await store.read_output(ids.job_of(run, 1), 1, "stdout", offset, limit)).data


async def test_chunks_lie_at_their_offsets_and_repeated_ones_say_the_same(store: Store) -> None:
    run = await StoredLab(store).started_run()
    first, second = output(run, b"hello "), output(run, b"world", offset=6, first=2)
    for batch in (first, second, first, second):
        await store.take_output([batch])
    assert await text(store, run) == b"hello world"
    assert await text(store, run, 6, 3) == b"wor"
    assert await text(store, run, -1, 5) == b"world"
    assert await text(store, run, 99) == b""


async def test_a_hole_that_the_cut_has_left_is_read_as_zeros(store: Store) -> None:
    run = await StoredLab(store).started_run()
    await store.take_output([output(run, b"begin"), output(run, b"end", offset=8, first=2)])
    assert await text(store, run) == b"begin\0\0\0end"


@pytest.mark.parametrize("offset", [-1, MOST_BYTES, MOST_BYTES - 2, 2**62])
async def test_an_offset_that_cannot_be_is_a_lie(store: Store, offset: int) -> None:
    run = await StoredLab(store).started_run()
    (outcome,) = await store.take_output([output(run, b"lie", offset=offset)])
    assert outcome.upto == 1, "the spool goes on"
    assert outcome.refused[0].startswith("output_offset: ")
    assert await text(store, run) == b""


async def test_output_of_an_attempt_that_it_does_not_hold_is_refused(store: Store) -> None:
    run = await StoredLab(store).started_run()
    outcomes = await store.take_output(
        [
            output(run, b"x", agent="a2"),
            output(run, b"x", attempt=7),
            output(run, b"x", serial=9, first=2),
        ]
    )
    assert [each.refused[0].split(":")[0] for each in outcomes] == ["not_holder"] * 3
    assert not list(store.folder.glob("output/*"))


async def test_a_gap_takes_nothing(store: Store) -> None:
    run = await StoredLab(store).started_run()
    (outcome,) = await store.take_output([output(run, b"x", first=5)])
    assert (outcome.upto, outcome.gap_from) == (0, 1)
    assert await text(store, run) == b""


async def test_no_name_leads_out_of_the_folder(store: Store) -> None:
    run = await StoredLab(store).started_run()
    for stream in ("../../evil", "a/b", "", ".", "x" * 300):
        with pytest.raises(InvalidId):
            path_of(store.folder, ids.job_of(run, 1), 1, stream)
    with pytest.raises(InvalidId):
        path_of(store.folder, "job-../../../etc/passwd", 1, "stdout")


async def test_marks_of_output_and_samples_do_not_mix(store: Store) -> None:
    run = await StoredLab(store).started_run()
    await store.take_output([output(run, b"x")])
    assert await store.marks() == [("a1", "reports", "s1", 2), ("a1", "output", "o1", 1)]
