import random
from pathlib import Path

import pytest

from tshrag_common.console_log import ConsoleRecord, packed, unpacked
from tshrag_common.console_requests import GetConsole, GrepConsole
from tshrag_common.errors import LabError
from tshrag_common.reports import OutputChunk
from tshrag_common.wire import BadMessage
from tshrag_controller.store.console_reading import Searches, Windows, page
from tshrag_controller.store.consoles import ConsoleStore, Kept, blocks, folder_of, segments

SPOOL = "spool-1"
DAY = 86_400_000_000


def chunk(at: int, data: bytes, dut: str = "d1") -> OutputChunk:
    block = packed([ConsoleRecord(at, "rx", data)])
    return OutputChunk(
        run="", job="", attempt=0, stream="console", offset=0, data=block, at=at, dut=dut
    )


def text_of(folder: Path, **more: int) -> bytes:
    answer = page(folder, GetConsole(dut="d1", **more))  # type: ignore[arg-type]
    return b"".join(each.data for each in unpacked(answer.block)) if answer.block else b""


def test_a_block_that_comes_again_counts_once_over_a_restart_too(tmp_path: Path) -> None:
    store = ConsoleStore(tmp_path)
    store.write(SPOOL, 1, chunk(10, b"one "))
    store.write(SPOOL, 1, chunk(10, b"one "))
    again = ConsoleStore(tmp_path)
    again.write(SPOOL, 1, chunk(10, b"one "))
    again.write(SPOOL, 2, chunk(20, b"two"))
    assert text_of(tmp_path) == b"one two"


def test_older_blocks_that_come_later_stand_before_the_newer_ones(tmp_path: Path) -> None:
    store = ConsoleStore(tmp_path)
    for number in (4, 5):
        store.write(SPOOL, number, chunk(number * 100, b"%d" % number))
    for number in (1, 2):
        store.write(SPOOL, number, chunk(number * 100, b"%d" % number), older=True)
    again = ConsoleStore(tmp_path)
    again.write(SPOOL, 2, chunk(200, b"2"), older=True)
    again.write(SPOOL, 6, chunk(600, b"6"))
    again.write(SPOOL, 3, chunk(300, b"3"), older=True)
    assert text_of(tmp_path) == b"123456"
    assert text_of(tmp_path, since=200, until=600) == b"2345"


@pytest.mark.parametrize("cut", range(1, 50, 7))
def test_a_torn_tail_is_cut_and_written_again(tmp_path: Path, cut: int) -> None:
    store = ConsoleStore(tmp_path)
    store.write(SPOOL, 1, chunk(10, b"whole "))
    store.write(SPOOL, 2, chunk(20, b"torn"))
    (segment,) = segments(folder_of(tmp_path, "d1"))
    segment.write_bytes(segment.read_bytes()[:-cut])
    assert text_of(tmp_path) == b"whole "
    again = ConsoleStore(tmp_path)
    again.write(SPOOL, 2, chunk(20, b"torn"))
    assert text_of(tmp_path) == b"whole torn"


def test_reads_begin_and_end_at_an_instant(tmp_path: Path) -> None:
    store = ConsoleStore(tmp_path)
    for number in range(1, 6):
        store.write(SPOOL, number, chunk(number * 100, b"%d" % number))
    assert text_of(tmp_path, since=200, until=400) == b"23"
    assert text_of(tmp_path, since=201) == b"345"
    assert text_of(tmp_path, since=600) == b""


def test_a_cursor_goes_on_where_the_last_page_ended(tmp_path: Path) -> None:
    store = ConsoleStore(tmp_path)
    for number in range(1, 21):
        store.write(SPOOL, number, chunk(number, bytes([64 + number]) * 40_000))
    got, cursor, pages = b"", "", 0
    while True:
        answer = page(tmp_path, GetConsole(dut="d1", since=1, cursor=cursor))
        got += b"".join(each.data for each in unpacked(answer.block))
        cursor, pages = answer.cursor, pages + 1
        if not answer.more:
            break
    assert len(got) == 20 * 40_000 and pages > 1
    assert got == b"".join(bytes([64 + number]) * 40_000 for number in range(1, 21))
    store.write(SPOOL, 21, chunk(21, b"later"))
    answer = page(tmp_path, GetConsole(dut="d1", cursor=cursor))
    assert [each.data for each in unpacked(answer.block)] == [b"later"]


def test_the_newest_bytes_are_found_without_an_instant(tmp_path: Path) -> None:
    store = ConsoleStore(tmp_path)
    for number in range(1, 100):
        store.write(SPOOL, number, chunk(number, b"%03d;" % number))
    assert text_of(tmp_path, tail_bytes=12) == b"097;098;099;"


def test_old_segments_go_and_the_newest_stays(tmp_path: Path) -> None:
    store = ConsoleStore(tmp_path, Kept(days=2, bytes_per_dut=1 << 30))
    chance = random.Random(7)
    for day in range(1, 7):
        for part in range(75):
            noise = chance.randbytes(60_000)
            store.write(SPOOL, day * 1000 + part, chunk(day * DAY + part, noise))
    kept = [int(path.stem) for path in segments(folder_of(tmp_path, "d1"))]
    assert min(kept) >= 3 * DAY, "what is older than two days should have gone"


def test_a_bomb_is_no_block() -> None:
    with pytest.raises(BadMessage, match="more than"):
        unpacked(packed([ConsoleRecord(1, "rx", bytes(4 << 20))]))


def test_an_org_reads_only_what_was_said_while_it_had_the_dut(tmp_path: Path) -> None:
    store = ConsoleStore(tmp_path)
    for number in range(1, 6):
        store.write(SPOOL, number, chunk(number * 100, b"%d" % number))
    answer = page(tmp_path, GetConsole(dut="d1", since=1), ((150, 250), (500, 0)))
    assert b"".join(each.data for each in unpacked(answer.block)) == b"25"


async def test_a_pattern_without_an_end_is_ended_itself(tmp_path: Path) -> None:
    store = ConsoleStore(tmp_path)
    store.write(SPOOL, 1, chunk(10, b"a" * 3000 + b"!\r\n"))
    searches = Searches(tmp_path, within_s=1.0)
    with pytest.raises(LabError, match="took too long") as caught:
        await searches.grep(GrepConsole(pattern="(a|aa)+$"))
    assert caught.value.code == "pattern_slow"


async def test_lines_cut_by_blocks_are_whole_again(tmp_path: Path) -> None:
    store = ConsoleStore(tmp_path)
    for number, data in enumerate((b"begin of a li", b"ne\r\nand ", b"more\n", b"rest"), 1):
        store.write(SPOOL, number, chunk(number * 10, data))
    searches = Searches(tmp_path)
    found = await searches.grep(GrepConsole(pattern="LINE|more|rest", ignore_case=True))
    assert [(line.at, line.text) for line in found.lines] == [
        (10, "begin of a line"), (20, "and more"), (40, "rest")]  # fmt: skip
    own = Windows(by_dut={"d1": ((15, 25),)}, all=False)
    found = await searches.grep(GrepConsole(pattern="."), own)
    assert [line.text for line in found.lines] == ["and more"]


def test_places_are_checked(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no place"):
        page(tmp_path, GetConsole(dut="d1", cursor="../../etc"))
    assert list(blocks(tmp_path / "none")) == []
