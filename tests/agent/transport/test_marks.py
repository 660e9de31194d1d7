import subprocess

import pytest
from hypothesis import given, strategies as st

from tshrag_agent.transport.marks import Cut, pieces, question, status_of
from tshrag_common.cksum import cksum

NONCE = "0123456789abcdef"
BEGIN, END = b"\x1e" + NONCE.encode() + b"B\x1e", b"\x1e" + NONCE.encode() + b"E3 41 42\x1e"

outputs = st.lists(
    st.sampled_from(
        [
            b"\x1e",
            NONCE.encode(),
            b"B",
            b"E",
            b"\x1e" + NONCE.encode(),
            b"\r\n",
            b"\r",
            b"x",
            b"\xff",
        ]
    )
).map(b"".join)


def cut(chunks: list[bytes], *, crlf: bool = False) -> tuple[bytes, str | None]:
    made = Cut(NONCE, crlf=crlf)
    return b"".join(made.feed(chunk) for chunk in chunks), made.end


@given(outputs.filter(lambda o: b"\x1e" + NONCE.encode() + b"E" not in o), st.data())
def test_the_output_is_cut_out_the_same_however_it_arrives(
    output: bytes, data: st.DataObject
) -> None:
    stream = b"echo of a line\r\n" + BEGIN + output + END + b"\r\n# "
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert cut(chunks) == (output, "3 41 42")
    assert cut([stream[i : i + 1] for i in range(len(stream))]) == (output, "3 41 42")


@given(outputs.filter(lambda o: b"\x1e" + NONCE.encode() + b"E" not in o))
def test_where_a_tty_adds_returns_they_are_taken_out(output: bytes) -> None:
    stream = BEGIN + output + END
    assert cut([stream[i : i + 1] for i in range(len(stream))], crlf=True) == (
        output.replace(b"\r\n", b"\n"),
        "3 41 42",
    )


def test_the_echo_of_a_question_is_never_a_mark() -> None:
    typed = question(NONCE, "echo x")
    assert cut([typed, b"\r\n", typed]) == (b"", None)


def test_a_question_answers_with_its_marks_in_a_real_shell() -> None:
    said = subprocess.run(
        ["sh", "-c", question(NONCE, "echo out; (exit 5)").decode()],
        capture_output=True,
        check=True,
    ).stdout
    assert cut([said]) == (b"out\n", "5")


@given(st.binary(max_size=800).map(lambda data: data.replace(b"\0", b"")))
def test_pieces_are_short_printable_and_whole(script: bytes) -> None:
    parts = pieces(script)
    assert all(len(part) < 330 and part.isprintable() and part.isascii() for part in parts)
    assert not any(set(part) & set("'!") for part in parts)


@pytest.mark.parametrize("script", [b"", b"a\n\n", bytes(range(1, 256)) * 3, "ünï'\\0!\t".encode()])
def test_pieces_come_back_through_printf(script: bytes) -> None:
    said = subprocess.run(
        ["sh", "-c", f"printf %b '{''.join(pieces(script))}'"], capture_output=True, check=True
    )
    assert said.stdout == script


@pytest.mark.parametrize("data", [b"", b"x", b"hello\n" * 100, bytes(range(256)) * 5])
def test_cksum_is_that_of_posix(data: bytes) -> None:
    said = subprocess.run(["cksum"], input=data, capture_output=True, check=True).stdout.split()
    assert said[:2] == [b"%d" % cksum(data), b"%d" % len(data)]


def test_an_end_mark_gives_status_and_what_is_left() -> None:
    assert status_of("3 41 42") == (3, (41, 42))
    assert status_of("0 ") == (0, ())
    assert status_of("") == (255, ())
    assert status_of("\x00junk 7") == (255, (7,))
