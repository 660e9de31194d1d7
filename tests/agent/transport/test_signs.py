import pytest
from hypothesis import given, strategies as st

from tests.support.wrong_speed import misread
from tshrag_agent.transport.signs import LINE_MOST, Sign, Signs

BOOT = (
    b"\r\n\r\nU-Boot SPL 2024.01 (Jan 08 2024)\r\nTrying to boot from MMC1\r\n\r\n"
    b"U-Boot 2024.01 (Jan 08 2024 - 15:37:48 +0000)\r\nHit any key to stop autoboot:  0 \r\n"
    b"[    0.000000] Booting Linux on physical CPU 0x0\r\n"
    b"[    0.000000] Linux version 6.1.0-18-arm64 (debian) #1 SMP\r\n"
    b"Debian GNU/Linux 12 b1 ttyAMA0\r\n\r\nb1 login: "
)
CRASH = (
    b"root\r\n# echo c > /proc/sysrq-trigger\r\n"
    b"[   12.1] sysrq: Trigger a crash\r\n"
    b"[   12.1] Kernel panic - not syncing: sysrq triggered crash\r\n"
)
LINES = [
    ("panic", b"[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root fs"),
    ("oops", b"[ 1.0] Internal error: Oops: 96000045 [#1] SMP"),
    ("oops", b"[ 1.0] Unable to handle kernel NULL pointer dereference at 0000000000000010"),
    ("bug", b"[ 1.0] kernel BUG at mm/slub.c:305!"),
    ("bug", b"[ 1.0] BUG: unable to handle page fault for address: ffff"),
    ("kasan", b"[ 1.0] BUG: KASAN: slab-out-of-bounds in kmalloc_oob_right+0xa8/0xbc"),
    ("kfence", b"[ 1.0] BUG: KFENCE: use-after-free read in test_use_after_free_read+0xb3"),
    ("lockdep", b"[ 1.0] WARNING: possible circular locking dependency detected"),
    ("lockdep", b"[ 1.0] WARNING: suspicious RCU usage"),
    ("lockup", b"[ 1.0] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [sh:1]"),
    ("lockup", b"[ 1.0] INFO: task kworker/0:1:9 blocked for more than 120 seconds."),
    ("lockup", b"[ 1.0] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:"),
    ("watchdog", b"Reset cause: watchdog"),
    ("watchdog", b"[ 1.0] watchdog: watchdog0: watchdog did not stop!"),
    ("watchdog", b"reset by WatchDog"),
    ("watchdog", b"wdt: timeout, restarting"),
    ("lockup", b"NMI: hard LOCKUP on cpu 3"),
    ("bootloader", b"\x1b[2JU-Boot 2023.07.02 (Jul 11 2023)"),
    ("bootloader", b"barebox 2024.03.0 #1 Fri Mar 15"),
    ("kernel", b"Linux version 5.15.0 (gcc)"),
]
INNOCENT = (
    *(b"INFO: all is well", b"WARNING: clock skew detected", b"the watchdog is a good dog"),
    *(b"see U-Boot 2024.01 for more", b"debug: BUGLE", b"last login: Fri", b"panic room"),
)


def kinds(found: list[Sign]) -> list[str]:
    return [sign.kind for sign in found]


@pytest.mark.parametrize(("kind", "line"), LINES)
def test_a_line_is_recognised(kind: str, line: bytes) -> None:
    assert kinds(Signs().feed(line + b"\r\n")) == [kind]


@pytest.mark.parametrize(("kind", "line"), LINES)
def test_a_sign_is_found_in_a_line_without_end(kind: str, line: bytes) -> None:
    signs = Signs()
    assert signs.feed(line + b" " * (LINE_MOST - len(line))) == []
    assert kinds(signs.feed(b".")) == [kind]


@pytest.mark.parametrize("line", INNOCENT)
def test_a_line_that_says_nothing_of_the_kind_is_left_alone(line: bytes) -> None:
    assert Signs().feed(line + b"\r\n") == []


@pytest.mark.parametrize("read_baud", [9600, 19200, 57600, 230400, 460800, 1_500_000])
def test_a_boot_read_at_a_wrong_speed_says_nothing(read_baud: int) -> None:
    garbage = misread((BOOT + CRASH) * 20, 115200, read_baud)
    assert len(garbage) > 100 and garbage != BOOT
    signs = Signs()
    assert [sign for start in range(0, len(garbage), 7)
            for sign in signs.feed(garbage[start : start + 7])] == []  # fmt: skip
    assert signs.boot == 0
    signs.feed(b"\r\n")
    assert kinds(signs.feed(BOOT)) == ["bootloader", "bootloader", "kernel", "login"]


def test_the_right_speed_is_read_right() -> None:
    assert misread(BOOT, 115200, 115200) == BOOT


def test_a_boot_is_counted_once_whatever_its_stages() -> None:
    signs = Signs()
    found = signs.feed(BOOT)
    assert kinds(found) == ["bootloader", "bootloader", "kernel", "login"]
    assert {sign.boot for sign in found} == {1}
    found = signs.feed(CRASH + BOOT)
    assert kinds(found) == ["panic", "bootloader", "bootloader", "kernel", "login"]
    assert [sign.boot for sign in found] == [1, 2, 2, 2, 2]


def test_a_kernel_that_starts_again_without_a_bootloader_is_a_boot() -> None:
    signs = Signs()
    signs.feed(b"Linux version 6.1\r\n")
    signs.feed(b"Linux version 6.1\r\n")
    assert signs.boot == 2


def test_a_login_prompt_is_seen_before_its_line_ends_and_once() -> None:
    signs = Signs()
    assert kinds(signs.feed(b"b1 login: ")) == ["login"]
    assert signs.feed(b"root\r\n") == []
    assert kinds(signs.feed(b"b1 login: ")) == ["login"]


def test_hostile_text_leaves_no_control_in_an_event() -> None:
    (sign,) = Signs().feed(b"\x1b[31mKernel panic - not syncing: \x1b]52;c;x\x07\x00 boo\n")
    assert sign.text.isprintable()


tokens = st.sampled_from(
    [line for _, line in LINES] + [BOOT, CRASH, *INNOCENT, b"\r\n", b"\n", b"\r", b"b1 login: "]
    + [b"x" * LINE_MOST, b"y" * (LINE_MOST - 7), b"\xff\x00", b"U-Boot", b" 2024.01"]
)  # fmt: skip


@given(st.lists(tokens, max_size=12), st.data())
def test_what_is_found_does_not_depend_on_how_the_bytes_are_cut(
    parts: list[bytes], data: st.DataObject
) -> None:
    text = b"".join(parts)
    whole = Signs()
    expected = whole.feed(text)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    signs = Signs()
    found: list[Sign] = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        found += signs.feed(text[start:end])
    assert found == expected
    assert signs.boot == whole.boot


def test_every_single_cut_finds_the_same() -> None:
    text = BOOT + CRASH + BOOT
    expected = Signs().feed(text)
    for cut in range(len(text) + 1):
        signs = Signs()
        assert signs.feed(text[:cut]) + signs.feed(text[cut:]) == expected
    one_by_one = Signs()
    assert [s for byte in text for s in one_by_one.feed(bytes([byte]))] == expected


@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_bytes_are_read_without_a_fault(data: bytes, cut: int) -> None:
    signs = Signs()
    assert signs.feed(data[:cut]) + signs.feed(data[cut:]) == Signs().feed(data)
