import msgspec
import pytest
from hypothesis import given, strategies as st

from tshrag_common.rfc2217 import (
    COM_PORT,
    DO,
    DONT,
    IAC,
    SB,
    SE,
    WILL,
    WONT,
    PortState,
    escaped,
)
from tshrag_controller.cli.rfc2217 import Heard, PortServer, ToBoard, ToLine


def board(found: list[Heard]) -> bytes:
    return b"".join(heard.data for heard in found if isinstance(heard, ToBoard))


def order(number: int, value: bytes = b"") -> bytes:
    return bytes((IAC, SB, COM_PORT, number)) + escaped(value) + bytes((IAC, SE))


@given(st.binary(max_size=200), st.integers(0, 400))
def test_bytes_come_through_as_they_are_however_they_are_cut(data: bytes, cut: int) -> None:
    port, sent = PortServer(PortState(baud=115200)), escaped(data)
    assert board(port.feed(sent[:cut])) + board(port.feed(sent[cut:])) == data


def test_a_new_speed_is_an_order_and_is_acknowledged() -> None:
    port = PortServer(PortState(baud=115200))
    assert port.feed(order(1, (9600).to_bytes(4, "big"))) == [ToLine("set", PortState(baud=9600))]
    assert bytes(port.replies) == order(101, (9600).to_bytes(4, "big"))


def test_the_speed_that_there_is_and_a_question_for_it_change_nothing() -> None:
    port = PortServer(PortState(baud=115200))
    assert port.feed(order(1, (115200).to_bytes(4, "big")) + order(1, bytes(4))) == []
    assert bytes(port.replies) == order(101, (115200).to_bytes(4, "big")) * 2


ORDERS = [
    (2, 7, {"data_bits": 7}),
    (3, 2, {"parity": "odd"}),
    (3, 3, {"parity": "even"}),
    (4, 2, {"stop_bits": 2}),
    (5, 2, {"flow": "xonxoff"}),
    (5, 3, {"flow": "rtscts"}),
    (5, 9, {"dtr": False}),
    (5, 12, {"rts": False}),
]


@pytest.mark.parametrize(("number", "value", "changed"), ORDERS)
def test_what_a_client_sets_is_an_order_for_the_line(
    number: int, value: int, changed: dict[str, object]
) -> None:
    port = PortServer(PortState())
    wanted = msgspec.convert(changed, PortState)
    assert port.feed(order(number, bytes((value,)))) == [ToLine("set", wanted)]
    assert port.feed(order(number, bytes((value,)))) == []
    assert bytes(port.replies) == order(number + 100, bytes((value,))) * 2


def test_what_no_line_can_be_is_answered_as_it_stands() -> None:
    port = PortServer(PortState())
    asked = {2: b"\x09", 3: b"\x09", 4: b"\x03", 1: (3).to_bytes(4, "big"), 5: b"\x0d"}
    holds = {2: b"\x08", 3: b"\x01", 4: b"\x01", 1: (115200).to_bytes(4, "big"), 5: b"\x0e"}
    for number, value in asked.items():
        assert port.feed(order(number, value)) == []
        assert bytes(port.replies) == order(number + 100, holds[number])
        port.replies.clear()


def test_a_break_is_sent_once() -> None:
    port = PortServer(PortState(baud=9600))
    assert port.feed(order(5, b"\x05") + order(5, b"\x06")) == [ToLine("break")]


def test_options_are_answered_once_each() -> None:
    port = PortServer(PortState(baud=9600))
    port.greeting()
    port.feed(bytes((IAC, DO, 31, IAC, WILL, 24, IAC, WILL, COM_PORT, IAC, DO, 1)))
    assert bytes(port.replies) == bytes((IAC, WONT, 31, IAC, DONT, 24))
    port.replies.clear()
    port.feed(bytes((IAC, DO, 31, IAC, WILL, 24)))
    assert not port.replies


@given(st.binary(max_size=300))
def test_any_bytes_are_read_without_a_fault_and_answers_stay_small(data: bytes) -> None:
    port = PortServer(PortState(baud=9600))
    port.feed(data)
    assert len(port.replies) <= 8 * len(data) + 300
