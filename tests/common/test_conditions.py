import pytest
from hypothesis import given, strategies as st

from tshrag_common.conditions import compare, condition, fault_of

HAS = {"ram": "8GiB", "arch": "arm64", "kernel": "v6.12", "host.room": "lab-2", "n": "3"}


@pytest.mark.parametrize(
    "text",
    [
        "ram", "ram exists", "!hdmi", "hdmi not exists", "arch = arm64", "arch == arm64",
        "arch!=x86_64", "hdmi != 1", "arch in arm64, riscv", "arch in (riscv,arm64)",
        "arch not in x86_64", "ram >= 8GiB", "ram > 512MiB", "ram<16GB", "kernel >= 6.6",
        "kernel < v7", "kernel > 6.12-rc3", "n >= 3", "n < 10", "host.room = lab-2",
    ],
)  # fmt: skip
def test_these_hold(text: str) -> None:
    assert condition(text).fault(HAS) == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hdmi", "label hdmi is missing"),
        ("!ram", "label ram is there"),
        ("arch = x86_64", "label arch is arm64, not x86_64"),
        ("arch in a, b", "label arch is arm64, not a or b"),
        ("arch != arm64", "label arch is arm64"),
        ("ram >= 16GiB", "label ram is 8GiB, not >= 16GiB"),
        ("usb >= 3", "label usb is missing, wanted >= 3"),
        ("arch >= 3", "label arch is arm64, which cannot be compared with 3"),
        ("kernel >= 6.13", "label kernel is v6.12, not >= 6.13"),
    ],
)
def test_these_do_not_and_say_why(text: str, why: str) -> None:
    assert condition(text).fault(HAS) == why


@pytest.mark.parametrize(
    "text", ["", " ", "ram >=", "ram >= lots", "! ram = 3", "ram exists 3", "arch in a,,b", "a b c",
             "x" * 2000]
)  # fmt: skip
def test_what_is_no_condition_says_how_to_write_one(text: str) -> None:
    assert "write KEY" in fault_of(text)


@given(
    st.lists(st.integers(0, 99), min_size=1, max_size=4),
    st.lists(st.integers(0, 99), min_size=1, max_size=4),
)
def test_versions_are_ordered_by_their_numbers(one: list[int], other: list[int]) -> None:
    a, b = (".".join(map(str, each)) for each in (["1", *one], ["1", *other]))
    expected = ([1, *one] > [1, *other]) - ([1, *one] < [1, *other])
    if len(one) > 1 and len(other) > 1:  # with one dot it is a number, as people expect of 1.5
        assert compare(a, b) == expected
    assert compare(a, a) == 0


@given(st.text(max_size=40))
def test_no_text_breaks_the_reader(text: str) -> None:
    fault_of(text)
