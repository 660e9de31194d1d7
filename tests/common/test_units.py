import math

import pint
import pytest
from hypothesis import given, strategies as st

from tshrag_common.units import (
    BASES,
    UNITS,
    BadQuantity,
    Quantity,
    printed,
    quantity,
    split,
    unit,
)


@pytest.mark.parametrize(
    ("text", "value", "dimension"),
    [
        ("150ms", 0.15, "time"),
        ("512MiB", 512 * 2**20, "size"),
        ("99.9%", 0.999, "ratio"),
        ("1.5GiB/s", 1.5 * 2**30, "data rate"),
        ("10Mbps", 1.25e6, "data rate"),
        ("500 req/min", 500 / 60, "frequency"),
        ("2.4 GHz", 2.4e9, "frequency"),
        ("120 RPS", 120, "frequency"),
        ("-12.5 °C", -12.5, "temperature"),
        ("3300mV", 3.3, "voltage"),
        ("250 µA", 0.00025, "current"),
        ("1.2kW", 1200, "power"),
        ("90min", 5400, "time"),
        ("1e3 ms", 1.0, "time"),
        (" 7 ", 7, "count"),
        ("100 kB", 100_000, "size"),
    ],
)
def test_a_quantity_is_in_the_base_unit(text: str, value: float, dimension: str) -> None:
    found = quantity(text)
    assert found.dimension == dimension
    assert math.isclose(found.value, value, rel_tol=1e-14)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "1m",
            "unit: max: 'm' is ambiguous: minute, metre, mega or milli; "
            "write 'min' for minutes, 'ms' for milliseconds",
        ),
        ("3 Mb", "unit: max: 'Mb' is no unit; nearest: MB, MiB, Mbps"),
        (
            "1,5ms",
            "unit: max: '1,5ms' is no quantity; "
            "write the number with a point and without commas, like '1.5 GiB'",
        ),
        ("1e999s", "unit: max: '1e999s' is beyond any number"),
        (
            "fast",
            "unit: max: 'fast' is no quantity; write a number and a unit, like '150ms'",
        ),
    ],
)
def test_what_is_no_quantity_is_refused_with_a_sentence(text: str, line: str) -> None:
    with pytest.raises(BadQuantity) as refused:
        quantity(text, "max")
    assert refused.value.line == line
    assert str(refused.value.problem) == line


@pytest.mark.parametrize(
    "text", ["", "ms", "1_0ms", "٣ms", "nan", "inf", "0x10", "1.2.3s", "1" * 99]
)
def test_odd_numbers_are_refused(text: str) -> None:
    with pytest.raises(BadQuantity):
        quantity(text)


def test_a_wrong_dimension_is_refused_with_the_units_that_fit() -> None:
    with pytest.raises(BadQuantity) as refused:
        quantity("5MB", "limits.rss", dimension="time")
    assert refused.value.line == (
        "unit: limits.rss: '5MB' is a size, expected a time; write it in ns, us, µs, μs, ms"
    )


@given(st.text(max_size=80))
def test_any_text_is_a_quantity_or_a_refusal_of_one_line(text: str) -> None:
    try:
        assert math.isfinite(quantity(text, "here").value)
    except BadQuantity as refused:
        assert refused.line.startswith("unit: here: ")
        assert refused.line.isascii() or "…" in refused.line or "µ" in refused.line
        assert "\n" not in refused.line


@pytest.fixture(scope="module")
def oracle() -> pint.UnitRegistry[float]:
    registry: pint.UnitRegistry[float] = pint.UnitRegistry()
    for name in ("req", "op", "packet", "event", "error", "message", "sample", "io"):
        registry.define(f"{name} = 1")
    return registry


PINT_NAMES = {
    "KB": "kB", "Kbit": "kbit", "C": "delta_degC", "°C": "delta_degC", "d": "day", "h": "hour",
    "min": "minute", "%": "percent", "bps": "bit/s", "kbps": "kbit/s", "Mbps": "Mbit/s",
    "Gbps": "Gbit/s", "rpm": "1/minute",
}  # fmt: skip


@given(
    st.sampled_from(
        [
            *("ns", "us", "ms", "s", "min", "h", "d", "B", "KB", "MB", "GB", "TB", "KiB", "MiB"),
            *("GiB", "TiB", "kbit", "Mbit", "B/s", "KiB/s", "MB/min", "GiB/h", "bps", "kbps"),
            *("Mbps", "Gbps", "Hz", "kHz", "MHz", "GHz", "%", "ppm", "rpm", "req/s", "op/min"),
            *("C", "mV", "V", "kV", "uA", "mA", "A", "mW", "W", "kW", "mJ", "J", "Wh", "kWh"),
        ]
    ),
    st.floats(min_value=0.001, max_value=1e9),
)
def test_factors_are_those_of_pint(
    oracle: pint.UnitRegistry[float], name: str, number: float
) -> None:
    ours = UNITS[name].to_base(number)
    base = {"frequency": "1/s", "ratio": "dimensionless", "temperature": "delta_degC"}
    target = base.get(UNITS[name].dimension, BASES[UNITS[name].dimension])
    theirs = (number * oracle(PINT_NAMES.get(name, name))).to(target).magnitude
    assert math.isclose(ours, theirs, rel_tol=1e-12)


def test_every_base_is_itself_a_unit_of_factor_one() -> None:
    for dimension, name in BASES.items():
        assert UNITS[name].dimension == dimension
        assert UNITS[name].to_base(3.25) == 3.25


def test_ascii_and_greek_micro_are_the_same_unit() -> None:
    assert {quantity(f"5{name}s") for name in ("u", "µ", "μ")} == {Quantity(5e-6, "time")}


@given(st.sampled_from(sorted(UNITS)), st.floats(min_value=-1e9, max_value=1e9))
def test_base_and_back_is_the_same_number(name: str, number: float) -> None:
    again = UNITS[name].from_base(UNITS[name].to_base(number))
    assert math.isclose(again, number, rel_tol=1e-14, abs_tol=1e-300)


@pytest.mark.parametrize(
    ("value", "name", "text"),
    [
        (0.182, "ms", "182 ms"),
        (0.00001, "ms", "10 us"),
        (5400, "ms", "1.5 h"),
        (0.0, "ms", "0 ms"),
        (1.5 * 2**30, "KiB", "1.5 GiB"),
        (1.5e9, "MB", "1500 MB"),
        (0.999, "%", "99.9%"),
        (1_234_567, "", "1234567"),
        (2.5, "ratio", "2.5"),
        (42.5, "C", "42.5 C"),
        (3, "bogo", "3 bogo"),
        (12.5e6, "Mbps", "100 Mbps"),
        (float("nan"), "ms", "nan ms"),
    ],
)
def test_a_number_is_printed_with_its_unit_and_short(value: float, name: str, text: str) -> None:
    assert printed(value, name) == text


@given(st.sampled_from(sorted(set(UNITS) - {"ratio"})), st.floats(min_value=1e-6, max_value=1e12))
def test_what_is_printed_reads_back(name: str, number: float) -> None:
    value = unit(name).to_base(number)
    assert math.isclose(quantity(printed(value, name)).value, value, rel_tol=1e-5)


def test_the_written_unit_is_kept() -> None:
    assert split("12.5 ms") == (12.5, UNITS["ms"])
