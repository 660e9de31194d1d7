from hypothesis import given, strategies as st

from tshrag_controller.cli.rfc2217 import (
    COM_PORT,
    DO,
    DONT,
    IAC,
    SB,
    SE,
    WILL,
    WONT,
    Heard,
    PortServer,
    ToBoard,
    ToLine,
    escaped,
)


def board(found: list[Heard]) -> bytes:
    return b"".join(heard.data for heard in found if isinstance(heard, ToBoard))


def order(number: int, value: bytes = b"") -> bytes:
    return bytes((IAC, SB, COM_PORT, number)) + escaped(value) + bytes((IAC, SE))


@given(st.binary(max_size=200), st.integers(0, 400))
def test_bytes_come_through_as_they_are_however_they_are_cut(data: bytes, cut: int) -> None:
    port, sent = PortServer(115200), escaped(data)
    assert board(port.feed(sent[:cut])) + board(port.feed(sent[cut:])) == data


def test_a_new_speed_is_an_order_and_is_acknowledged() -> None:
    port = PortServer(115200)
    assert port.feed(order(1, (9600).to_bytes(4, "big"))) == [ToLine("baud", 9600)]
    assert bytes(port.replies) == order(101, (9600).to_bytes(4, "big"))


def test_the_speed_that_there_is_and_a_question_for_it_change_nothing() -> None:
    port = PortServer(115200)
    assert port.feed(order(1, (115200).to_bytes(4, "big")) + order(1, bytes(4))) == []
    assert bytes(port.replies) == order(101, (115200).to_bytes(4, "big")) * 2


def test_a_break_is_sent_once() -> None:
    port = PortServer(9600)
    assert port.feed(order(5, b"\x05") + order(5, b"\x06")) == [ToLine("break")]


def test_options_are_answered_once_each() -> None:
    port = PortServer(9600)
    port.greeting()
    port.feed(bytes((IAC, DO, 31, IAC, WILL, 24, IAC, WILL, COM_PORT, IAC, DO, 1)))
    assert bytes(port.replies) == bytes((IAC, WONT, 31, IAC, DONT, 24))
    port.replies.clear()
    port.feed(bytes((IAC, DO, 31, IAC, WILL, 24)))
    assert not port.replies


@given(st.binary(max_size=300))
def test_any_bytes_are_read_without_a_fault_and_answers_stay_small(data: bytes) -> None:
    port = PortServer(9600)
    port.feed(data)
    assert len(port.replies) <= 8 * len(data) + 300
