import pytest
from hypothesis import given, strategies as st

from tshrag_common.ids import AgentId
from tshrag_common.keys import new_key
from tshrag_common.seals import BadSeal, CommandSigner, CommandVerifier, open_report, seal_report

A1, A2 = AgentId("a1"), AgentId("a2")
KEY = new_key("user")
SIGNER = CommandSigner(KEY.seed)
VERIFIER = CommandVerifier(A1, KEY.public)
MAC = b"k" * 32


@given(st.binary(max_size=2000))
def test_a_sealed_command_opens_at_its_agent_only(payload: bytes) -> None:
    sealed = SIGNER.seal(A1, payload)
    assert VERIFIER.open(sealed) == payload
    with pytest.raises(BadSeal, match="not the controller's"):
        CommandVerifier(A2, KEY.public).open(sealed)
    with pytest.raises(BadSeal):
        CommandVerifier(A1, new_key("user").public).open(sealed)


@given(st.binary(max_size=2000))
def test_a_sealed_report_opens_as_its_agent_s_only(payload: bytes) -> None:
    sealed = seal_report(MAC, A1, payload)
    assert open_report(MAC, A1, sealed) == payload
    for key, agent in ((MAC, A2), (b"x" * 32, A1)):
        with pytest.raises(BadSeal, match=r"not that of a\d"):
            open_report(key, agent, sealed)


@given(st.binary(min_size=1, max_size=100), st.data())
def test_a_changed_byte_anywhere_breaks_the_seal(payload: bytes, data: st.DataObject) -> None:
    for sealed, opened in (
        (SIGNER.seal(A1, payload), VERIFIER.open),
        (seal_report(MAC, A1, payload), lambda b: open_report(MAC, A1, b)),
    ):
        place = data.draw(st.integers(0, len(sealed) - 1))
        broken = bytearray(sealed)
        broken[place] ^= data.draw(st.integers(1, 255))
        with pytest.raises(BadSeal):
            opened(bytes(broken))


@given(st.binary(max_size=300))
def test_any_bytes_from_outside_are_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(BadSeal) as caught:
        VERIFIER.open(data)
    assert caught.value.line.startswith("bad_seal: command: ")
    with pytest.raises(BadSeal):
        open_report(MAC, A1, data)


def test_a_report_is_no_command_and_a_command_no_report() -> None:
    with pytest.raises(BadSeal):
        VERIFIER.open(seal_report(MAC, A1, b"x" * 100))
    with pytest.raises(BadSeal):
        open_report(MAC, A1, SIGNER.seal(A1, b"x" * 100))
