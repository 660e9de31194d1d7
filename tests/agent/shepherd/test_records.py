from pathlib import Path

import pytest

from tests.chaos.images import a_small_disk, can_mount, fill
from tshrag_agent.shepherd.records import Records


def opened(path: Path) -> Records:
    records = Records(str(path))
    records.begin(["/groups"])
    return records


def test_a_later_shepherd_reads_what_is_alive_and_what_is_not_forgotten(tmp_path: Path) -> None:
    records = opened(tmp_path / "r")
    for number, key in enumerate("abc"):
        records.note_start(key, 100 + number, f"/groups/{key}", at=5)
    records.note_ticks("a", 77)
    records.note_exit({"key": "b", "exit_code": 0})
    records.note_exit({"key": "c", "exit_code": 1})
    records.note_forgotten(["c", "unknown"])
    records.flush()
    again = Records(str(tmp_path / "r"))
    assert again.started == {
        "a": {"key": "a", "pid": 100, "ticks": 77, "group": "/groups/a", "at": 5}
    }
    assert again.exits == {"b": {"key": "b", "exit_code": 0}}
    assert again.folders == ["/groups"] and again.is_same_boot


def test_what_was_not_flushed_does_not_count(tmp_path: Path) -> None:
    opened(tmp_path / "r").note_start("a", 1, "", at=0)
    assert Records(str(tmp_path / "r")).started == {}


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_last_line_takes_nothing_else_along(tmp_path: Path, cut: int) -> None:
    records = opened(tmp_path / "r")
    records.note_start("a", 1, "", at=0)
    records.note_start("b", 2, "", at=0)
    records.flush()
    data = (tmp_path / "r").read_bytes()
    (tmp_path / "r").write_bytes(data[:-cut])
    assert set(Records(str(tmp_path / "r")).started) <= {"a", "b"}
    assert "a" in Records(str(tmp_path / "r")).started


def test_after_a_reboot_folders_and_pids_mean_nothing(tmp_path: Path) -> None:
    (tmp_path / "r").write_text('["boot", {"boot": "another", "folders": ["/groups"]}]\n')
    records = Records(str(tmp_path / "r"))
    assert records.folders == [] and not records.is_same_boot


def test_the_file_stays_small(tmp_path: Path) -> None:
    records = opened(tmp_path / "r")
    for number in range(30_000):
        records.note_start(f"job-{number}", 1, "/groups/1", at=0)
        records.note_exit({"key": f"job-{number}", "exit_code": 0, "text": "x" * 200})
        records.note_forgotten([f"job-{number}"])
        records.flush()
    assert (tmp_path / "r").stat().st_size < 5_000_000
    assert Records(str(tmp_path / "r")).exits == {}


@pytest.mark.skipif(can_mount() != "", reason=can_mount())
def test_a_full_disk_stops_nothing_and_is_made_good_for(tmp_path: Path) -> None:
    with a_small_disk(tmp_path / "small", 1) as disk:
        records = opened(disk / "r")
        records.note_start("a", 1, "", at=0)
        records.flush()
        filler = fill(disk)
        for number in range(300):
            records.note_start(f"b{number}", number, "/groups/" + "x" * 60, at=0)
            records.flush()
        assert "a" in Records(str(disk / "r")).started, "what was written before is kept"
        later = Records(str(disk / "r"))
        later.begin(["/other"])  # a shepherd also starts on a full disk
        filler.unlink()
        records.note_exit({"key": "a", "exit_code": 0})
        records.flush()
        again = Records(str(disk / "r"))
        assert len(again.started) == 300
        assert again.exits == {"a": {"key": "a", "exit_code": 0}}
