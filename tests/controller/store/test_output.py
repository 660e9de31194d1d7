import pytest

from tests.support.stored import StoredLab, output
from tshrag_common import ids
from tshrag_common.errors import InvalidId
from tshrag_common.ids import RunId
from tshrag_controller.store.output import MOST_BYTES, MOST_OFFSET, path_of
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


async def test_a_short_hole_is_read_as_zeros(store: Store) -> None:
    run = await StoredLab(store).started_run()
    await store.take_output([output(run, b"begin"), output(run, b"end", offset=8, first=2)])
    assert await text(store, run) == b"begin\0\0\0end"


async def test_what_an_agent_has_cut_is_told_in_its_place(store: Store) -> None:
    run = await StoredLab(store).started_run()
    tail = 1 << 30
    head = b"h" * 4096
    await store.take_output([output(run, head), output(run, b"END", offset=tail, first=2)])
    job = ids.job_of(run, 1)
    first = await store.read_output(job, 1, "stdout", 0, 1 << 20)
    assert (first.data, first.after) == (head, 4096)
    mark = await store.read_output(job, 1, "stdout", first.after, 1 << 20)
    assert mark.data.decode() == f"\n…cut {tail - 4096} bytes…\n"
    assert (mark.cut, mark.after) == (tail - 4096, tail)
    assert await text(store, run, mark.after) == b"END"
    assert await text(store, run, -1, 3) == b"END"


async def test_a_stream_that_never_ends_does_not_fill_our_disk(store: Store) -> None:
    run = await StoredLab(store).started_run()
    size = 1 << 20
    for number in range(MOST_BYTES // size + 1):
        batch = output(run, b"x" * size, offset=number * size, first=number + 1)
        (outcome,) = await store.take_output([batch])
    assert outcome.refused[0].startswith("output_limit: ")


@pytest.mark.parametrize("offset", [-1, MOST_OFFSET + 1, 2**62])
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
