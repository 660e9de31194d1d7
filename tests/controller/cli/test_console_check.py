"""A file that was sent from a console is checked by asking the board, and only at a prompt."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from tshrag_controller.cli.console_check import FileCheck, sums_of

DATA = b"a kernel\x00\xff" * 99
SUMS = sums_of(DATA)


def asked(prompt: bytes, name: str = "image") -> tuple[FileCheck, bytes]:
    check = FileCheck(name, SUMS)
    check.hear(b"\r\nReceived\r\n" + prompt)
    return check, check.silence()


@pytest.mark.parametrize("prompt", [b"# ", b"~ $ ", b"root@b1:/# ", b"\x1b[01;32mb1\x1b[00m:~$ "])
def test_a_shell_is_asked_by_cksum(prompt: bytes, tmp_path: Path) -> None:
    check, command = asked(prompt, "my file")
    assert command == b"cksum './my file'\r"
    (tmp_path / "my file").write_bytes(DATA)
    answer = subprocess.run(
        ["sh", "-c", command.decode().strip()], cwd=tmp_path, capture_output=True, check=True
    )
    check.hear(command + b"\n")  # its echo
    assert not check.told
    check.hear(answer.stdout.replace(b"\n", b"\r\n") + prompt)
    assert check.told == f"checked: the board has the same {len(DATA)} bytes"


def test_a_shell_that_has_something_else_is_told_of() -> None:
    check, _ = asked(b"# ")
    check.hear(b"cksum './image'\r\n123 %d ./image\r\n# " % len(DATA))
    assert check.told == f"NOT what was sent: the board has 123 {len(DATA)}; send it again"


@pytest.mark.parametrize("prompt", [b"=> ", b"U-Boot> ", b"STM32MP=> "])
@pytest.mark.parametrize("same", [True, False])
def test_uboot_is_asked_by_crc32(prompt: bytes, same: bool) -> None:
    check, command = asked(prompt, "")
    assert command == b"crc32 ${fileaddr} ${filesize}\r"  # nobody has told where it lies
    sum_ = SUMS.crc32 if same else SUMS.crc32 ^ 1
    check.hear(b"crc32 for 40200000 ... 4020231b ==> %08x\r\n" % sum_ + prompt)
    assert check.told.startswith("checked: " if same else "NOT what was sent")


@pytest.mark.parametrize(
    ("said", "name", "why"),
    [
        (b"# ", "", "XMODEM tells no name"),
        (b"still flashing", "image", "no prompt is seen"),
        (b"login: ", "image", "no prompt is seen"),
    ],
)
def test_nothing_is_typed_where_nobody_waits_for_a_command(
    said: bytes, name: str, why: str
) -> None:
    check = FileCheck(name, SUMS)
    check.hear(said)
    typed = b"".join(check.silence() for _ in range(9))
    assert not typed
    assert check.told == (
        f"not checked ({why}); cksum has to say {SUMS.posix} {SUMS.size}, "
        f"crc32 of U-Boot {SUMS.crc32:08x}"
    )


def test_a_shell_that_has_no_such_file_or_no_cksum_is_no_failure() -> None:
    check, _ = asked(b"# ")
    check.hear(b"cksum './image'\r\nsh: cksum: not found\r\n# ")
    assert not check.told
    assert check.silence() == b""
    assert check.told.startswith("not checked (the board does not say its sum)")


@given(st.binary(max_size=300), st.text(max_size=20))
def test_whatever_a_board_says_the_check_ends(said: bytes, name: str) -> None:
    check = FileCheck(name, SUMS)
    check.hear(said)
    typed = sum(bool(check.silence()) for _ in range(6))
    check.hear(said)
    typed += sum(bool(check.silence()) for _ in range(70))
    assert typed <= 1
    assert check.told
