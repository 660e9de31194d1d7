from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings, strategies as st

from tshrag_common.xymodem import CANCEL, Receiver, Sender

MOST = 1 << 20
Damage = Callable[[bytes], bytes]


def clean(data: bytes) -> bytes:
    return data


def talk(sender: Sender, receiver: Receiver, down: Damage = clean, up: Damage = clean) -> None:
    """Let both talk until both are over, or neither ever will be."""
    to_receiver, to_sender = sender.begin(), receiver.begin()
    for _ in range(20_000):
        if to_sender:
            data, to_sender = up(to_sender), b""
            to_receiver += sender.feed(data) if sender.state == "going" and data else b""
        elif to_receiver:
            data, to_receiver = down(to_receiver), b""
            to_sender += receiver.feed(data) if receiver.state == "going" and data else b""
        elif sender.state == receiver.state == "going" or "going" in (sender.state, receiver.state):
            if sender.state == "going":
                to_receiver += sender.silence()
            if receiver.state == "going":
                to_sender += receiver.silence()
        else:
            return
    raise AssertionError(f"no end: {sender.state}, {receiver.state}")


def damaged(faults: Iterator[int]) -> Damage:
    """Drop a piece, cut one, or break a byte of it, as `faults` say; then all goes well."""

    def damage(data: bytes) -> bytes:
        match next(faults, 0):
            case 1:
                return b""
            case 2:
                return data[: len(data) // 2]
            case 3:
                place = len(data) // 3
                return data[:place] + bytes((data[place] ^ 0x55,)) + data[place + 1 :]
            case 4:
                return data[len(data) // 2 :]
            case _:
                return data

    return damage


sizes = st.sampled_from([0, 1, 127, 128, 129, 896, 897, 1023, 1024, 1025, 5000, 300 * 128])
faults = st.lists(st.integers(0, 4), max_size=12)


@given(sizes, st.booleans())
def test_a_file_arrives_as_it_was(size: int, named: bool) -> None:
    data = bytes(index * 7 & 0xFF for index in range(size))
    sender = Sender(data, "file" if named else "")
    receiver = Receiver(named=named, most_bytes=MOST)
    talk(sender, receiver)
    assert (sender.state, receiver.state) == ("done", "done")
    assert bytes(receiver.data).startswith(data)
    assert len(receiver.data) == size if named else len(receiver.data) - size < 1024


@settings(deadline=None, max_examples=200)
@given(sizes, st.booleans(), faults, faults)
def test_what_is_lost_or_broken_is_never_taken_for_whole(
    size: int, named: bool, down: list[int], up: list[int]
) -> None:
    data = bytes(index * 13 & 0xFF for index in range(size))
    sender = Sender(data, "file" if named else "")
    receiver = Receiver(named=named, most_bytes=MOST)
    talk(sender, receiver, damaged(iter(down)), damaged(iter(up)))
    if receiver.state == "done":
        assert bytes(receiver.data[:size]) == data
    if not any(up):  # what is lost on the way down alone is always made good
        assert (sender.state, receiver.state) == ("done", "done")
    if sender.state == "done":
        assert bytes(receiver.data[:size]) == data


@given(st.lists(st.binary(max_size=60), max_size=30))
def test_any_bytes_are_taken_without_a_fault(noise: list[bytes]) -> None:
    for machine in (
        Sender(b"x" * 3000, "f"),
        Sender(b"x" * 3000),
        Receiver(named=True, most_bytes=999),
        Receiver(named=False, most_bytes=999),
    ):
        for piece in noise:
            machine.feed(piece) if piece else machine.silence()


@given(st.integers(1, 7))
def test_pieces_of_any_size_say_the_same(size: int) -> None:
    data = bytes(range(256)) * 12
    sender, receiver = Sender(data, "f"), Receiver(named=True, most_bytes=MOST)
    heard = receiver.begin()
    while receiver.state == "going":
        said = sender.feed(heard)
        heard = b"".join(receiver.feed(said[at : at + size]) for at in range(0, len(said), size))
    assert bytes(receiver.data) == data


def test_a_line_of_text_does_not_start_a_sender() -> None:
    sender = Sender(b"x", "f")
    assert sender.feed(b"$ rb -C\r\nReady, C you\r\n") == b""
    assert sender.feed(b"C")[:3] == b"\x01\x00\xff"


def test_a_receiver_without_crc_gets_small_blocks_and_a_sum() -> None:
    sender = Sender(b"\xff" * 2000)
    block = sender.feed(b"\x15")
    assert (len(block), block[:3], block[-1]) == (132, b"\x01\x01\xfe", 0xFF * 128 & 0xFF)


@pytest.mark.parametrize("named", [True, False])
def test_a_cancel_ends_either_side(named: bool) -> None:
    for machine in (Sender(b"x", "f" if named else ""), Receiver(named=named, most_bytes=9)):
        machine.begin()
        machine.feed(CANCEL)
        assert (machine.state, machine.why) == ("failed", "the other side has cancelled")
        other = Sender(b"x", "f" if named else "")
        assert other.cancel() == CANCEL and other.state == "failed"


def test_silence_ends_either_side() -> None:
    for machine in (Sender(b"x", "f"), Receiver(named=True, most_bytes=9)):
        for _ in range(40):
            if machine.state == "going":
                machine.silence()
        assert machine.why == "nothing was heard for 60 s"


def test_what_is_too_long_is_refused_before_it_comes() -> None:
    sender, receiver = Sender(b"x" * 11, "f"), Receiver(named=True, most_bytes=10)
    talk(sender, receiver)
    assert receiver.why == "it has 11 bytes, longer than 10 bytes"
    assert sender.why == "the other side has cancelled"


def test_what_is_said_behind_the_end_is_kept() -> None:
    sender, receiver = Sender(b"x", "f"), Receiver(named=True, most_bytes=9)
    heard = receiver.begin()
    while receiver.state == "going":
        heard = receiver.feed(sender.feed(heard))
    assert (sender.state, sender.unread) == ("going", b"")
    sender.feed(b"# " if sender.state == "going" else b"")  # its last ACK was lost
    assert (sender.state, sender.unread) == ("done", b"# ")
