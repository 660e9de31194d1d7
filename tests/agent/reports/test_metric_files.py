import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.waiting import wait_until
from tshrag_agent.attempts.metric_gate import MetricGate
from tshrag_agent.reports.metric_files import MAX_FILES, READ_BYTES, MetricFiles
from tshrag_common.clock import SystemClock
from tshrag_common.metrics import MetricInfo

AT = 1_790_000_000_000_000


class Folder:
    """A folder of CSV files that is followed, and what came of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.taken: list[tuple[str, float]] = []
        self.gate = MetricGate(
            lambda info, at, value, span: self.taken.append((info.key, value)),
            declared=[MetricInfo(key="network.latency", unit="ms")],
        )
        self.files = MetricFiles(path, self.gate, SystemClock())

    def write(self, text: str, name: str = "a.csv") -> None:
        with (self.path / name).open("a") as file:
            file.write(text)

    @property
    def values(self) -> list[float]:
        return [value for _, value in self.taken]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    folder = Folder(tmp_path)
    yield folder
    folder.files.close()


def row(value: float) -> str:
    return f"{AT},{value}\n"


async def test_a_file_is_followed_as_it_grows(folder: Folder) -> None:
    folder.write("timestamp,value\n" + row(12.5), "network::latency.csv")
    await folder.files.poll()
    folder.write(f"{AT},1", "network::latency.csv")
    await folder.files.poll()
    folder.write("3\n", "network::latency.csv")
    await folder.files.poll()
    assert folder.taken == [("network.latency", 0.0125), ("network.latency", 0.013)]
    assert await folder.files.poll() == 0


async def test_the_last_line_counts_without_a_line_feed(folder: Folder) -> None:
    folder.write(row(1) + f"{AT},2")
    await folder.files.finish()
    assert folder.values == [1, 2]


async def test_a_truncated_file_is_read_from_its_start(folder: Folder) -> None:
    folder.write("time,value\n" + row(1) + row(2))
    await folder.files.poll()
    (folder.path / "a.csv").write_text("time,value\n" + row(3))
    await folder.files.finish()
    assert folder.values == [1, 2, 3]
    assert folder.gate.refused == 0


async def test_a_rotated_file_is_read_to_its_end_before_the_next(folder: Folder) -> None:
    folder.write(row(1))
    await folder.files.poll()
    folder.write(row(2) + f"{AT},3")
    (folder.path / "a.csv").rename(folder.path / "a.csv.1")
    folder.write("time,value\n" + row(4))
    await folder.files.finish()
    assert folder.values == [1, 2, 3, 4]
    assert folder.gate.refused == 0


async def test_a_large_file_is_read_in_pieces_to_its_end(folder: Folder) -> None:
    rows = READ_BYTES // len(row(1.5)) * 2 + 7
    folder.write(row(1.5) * rows)
    await folder.files.poll()
    assert 0 < len(folder.taken) < rows
    await folder.files.finish()
    assert len(folder.taken) == rows


async def test_a_large_rotated_file_is_read_to_its_end_too(folder: Folder) -> None:
    folder.write(row(1))
    await folder.files.poll()
    rows = READ_BYTES // len(row(1)) * 2
    folder.write(row(1) * rows)
    (folder.path / "a.csv").rename(folder.path / "old")
    folder.write(row(2))
    await folder.files.finish()
    assert folder.values == [1.0] * (rows + 1) + [2.0]


async def test_a_removed_file_is_read_to_its_end_and_let_go(folder: Folder) -> None:
    folder.write(row(1))
    await folder.files.poll()
    folder.write(row(2))
    (folder.path / "a.csv").unlink()
    await folder.files.poll()
    folder.write(row(3))
    await folder.files.finish()
    assert folder.values == [1, 2, 3]


async def test_bad_names_links_and_fifos_are_left_alone(folder: Folder) -> None:
    secret = folder.path / "secret"
    secret.write_text(row(1))
    (folder.path / "link.csv").symlink_to(secret)
    os.mkfifo(folder.path / "fifo.csv")
    (folder.path / "folder.csv").mkdir()
    folder.write(row(1), "bad name.csv")
    folder.write(row(1), "notes.txt")
    folder.write(row(5), "good.csv")
    await folder.files.poll()
    await folder.files.finish()
    assert folder.taken == [("good", 5.0)]
    (notice,) = folder.gate.notices()
    assert (notice.key, notice.count) == ("bad name.csv", 1)
    assert notice.reason.startswith("metric_key: bad name.csv: 'bad name' is no metric key")


async def test_a_folder_that_is_not_there_yet_is_no_error(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "metrics")
    assert await folder.files.poll() == 0
    folder.path.mkdir()
    folder.write(row(1))
    await folder.files.finish()
    assert folder.values == [1]


async def test_files_are_bounded(folder: Folder) -> None:
    for n in range(MAX_FILES + 5):
        folder.write(row(n), f"k{n:04d}.csv")
    await folder.files.finish()
    assert len(folder.taken) == MAX_FILES
    (notice,) = folder.gate.notices()
    assert notice.reason == "metric_file: more than 200 files"


async def test_following_goes_on_until_it_is_cancelled(folder: Folder) -> None:
    async with asyncio.TaskGroup() as group:
        running = group.create_task(folder.files.run(0.01))
        folder.write(row(1))
        await wait_until(lambda: folder.values == [1])
        folder.write(row(2))
        await wait_until(lambda: folder.values == [1, 2])
        running.cancel()
