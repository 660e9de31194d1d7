import struct
import zlib
from array import array

from hypothesis import given, strategies as st

from tshrag_controller.store.chunks import LEAST_PACKED_BYTES, pack_column, unpack_column

NUMBERS = st.lists(
    st.one_of(
        st.integers(-(2**63), 2**63 - 1),
        st.integers(10**15, 10**15 + 1000),
        st.floats(allow_nan=False).map(lambda x: struct.unpack("<q", struct.pack("<d", x))[0]),
    ),
    max_size=300,
)


@given(NUMBERS)
def test_a_column_comes_back_as_it_was(numbers: list[int]) -> None:
    plain = array("q", numbers).tobytes()
    assert unpack_column(pack_column(plain)) == plain
    assert len(pack_column(plain)) <= len(plain) + 1


def test_instants_and_noise_are_packed_and_random_bytes_are_not() -> None:
    instants = array("q", range(10**15, 10**15 + 1_000_000, 1000)).tobytes()
    assert len(pack_column(instants)) < len(instants) / 3
    constant = array("d", [1.5] * 1000).tobytes()
    assert len(pack_column(constant)) < 100
    noise = b"".join(zlib.crc32(n.to_bytes(4, "big")).to_bytes(4, "big") for n in range(2000))
    assert pack_column(noise) == b"p" + noise


def test_what_an_earlier_build_has_packed_is_read() -> None:
    plain = array("q", range(1000)).tobytes()
    shuffled = b"".join(plain[at::8] for at in range(8))
    assert unpack_column(b"z" + zlib.compress(shuffled, 1)) == plain
    short = plain[: LEAST_PACKED_BYTES - 8]
    assert pack_column(short) == b"p" + short
