import errno
import os
from pathlib import Path

from hypothesis import HealthCheck, given, settings, strategies as st

from tshrag_agent.shepherd.output import Output, open_output

BOUND, BLOCK = 64 * 1024, 4096
fixed = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(writes=st.lists(st.integers(0, 3 * BOUND), max_size=8), before=st.integers(0, BOUND))
@fixed
def test_head_and_tail_stay_and_the_rest_is_counted(
    tmp_path: Path, writes: list[int], before: int
) -> None:
    file = tmp_path / "out"
    file.write_bytes(b"b" * before)
    output = open_output(str(file), BOUND)
    whole = b"b" * before
    for number, size in enumerate(writes):
        piece = bytes([number + 1]) * size
        os.write(output.fd, piece)
        whole += piece
        output.check(0.01)
    output.close()
    kept = file.read_bytes()
    cut = output.cut_bytes
    assert output.written_bytes == len(whole) - before
    assert len(kept) == len(whole)
    assert kept.count(0) == cut
    over = max(len(whole) - before - BOUND, 0)
    assert over <= cut <= (over + 2 * BLOCK if over else 0)
    assert kept[: before + BOUND // 2 - BLOCK] == whole[: before + BOUND // 2 - BLOCK]
    assert kept[-BOUND // 2 + BLOCK :] == whole[-BOUND // 2 + BLOCK :]
    file.unlink()


def test_without_holes_the_file_ends_at_its_bound(tmp_path: Path) -> None:
    def no_holes(fd: int, start: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not here")

    file = tmp_path / "out"
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    output = Output(fd, BOUND, punch=no_holes)
    for _ in range(5):
        os.write(fd, b"x" * 2 * BOUND)
        output.check(0.01)
        assert file.stat().st_size == BOUND
    output.close()
    assert output.written_bytes == 10 * BOUND
    assert output.cut_bytes == 9 * BOUND


def test_a_fast_writer_is_looked_at_more_often(tmp_path: Path) -> None:
    output = open_output(str(tmp_path / "out"), 1024 * BOUND)
    quiet = output.check(0.1)
    os.write(output.fd, b"x" * 512 * BOUND)
    assert output.check(0.1) < quiet
    output.close()
