from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from tshrag_agent.reports.proc_stats import readings, segment
from tshrag_common.metrics import metric_key

BEFORE = {"/proc/stat": "cpu  100 10 50 800 40 0 0 0 20 5\ncpu0 1 1 1 1\n"}
AFTER = {
    "/proc/stat": "cpu  160 10 70 900 60 0 0 0 30 5\n",
    "/proc/meminfo": "MemTotal: 1000 kB\nMemFree:  300 kB\nMemAvailable: 600 kB\n"
    "Buffers: 50 kB\nCached: 200 kB\nShmem: 10 kB\nSReclaimable: 25 kB\n"
    "SwapTotal: 100 kB\nSwapFree: 75 kB\nHugePages_Total: 0\n",
    "/proc/loadavg": "0.52 0.41 0.30 1/123 4567\n",
    "/proc/uptime": "3725.50 7000.00\n",
    "/proc/net/dev": "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes\n"
    "    lo: 999 1 0 0 0 0 0 0 999 1 0 0 0 0 0 0\n"
    "  eth0:1000 1 0 0 0 0 0 0 500 1 0 0 0 0 0 0\n"
    " wlan0: 24 1 0 0 0 0 0 0 12 1 0 0 0 0 0 0\n",
    "/proc/diskstats": " 179 0 mmcblk0 10 0 100 5 20 0 200 9 0 0 0\n"
    " 179 1 mmcblk0p1 10 0 100 5 20 0 200 9 0 0 0\n   7 0 loop0 1 1 1 1 1 1 1 1 1 1 1\n"
    "   8 0 sda 1 0 2 3 4 0 6 7 0 0 0\n",
    "/sys/class/thermal/thermal_zone0/temp": "48312\n",
    "/sys/class/thermal/thermal_zone1/temp": "-274000\n",
    "/sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
}


def found(before: dict[str, str] | None, after: dict[str, str]) -> dict[str, float]:
    return {
        reading.info.key.removeprefix("dut.x."): reading.value
        for reading in readings("dut.x", before, after)
    }


def test_cpu_is_for_the_interval_and_counts_no_guest_twice() -> None:
    cpu = {key: value for key, value in found(BEFORE, AFTER).items() if key.startswith("cpu.")}
    assert cpu["cpu.usr"] == 50 / 200
    assert cpu["cpu.guest"] == 10 / 200
    assert cpu["cpu.sys"] == 20 / 200
    assert cpu["cpu.idle"] == 100 / 200
    assert cpu["cpu.iowait"] == 20 / 200
    assert cpu["cpu.used"] == pytest.approx(80 / 200)
    assert sum(value for key, value in cpu.items() if key != "cpu.used") == pytest.approx(1)


def test_the_first_text_has_no_cpu() -> None:
    assert not any(key.startswith("cpu.") for key in found(None, AFTER))


def test_a_reboot_in_between_gives_no_cpu() -> None:
    assert not any(key.startswith("cpu.") for key in found(AFTER, BEFORE))


def test_memory_is_in_bytes_with_true_units() -> None:
    memory = found(None, AFTER)
    assert memory["mem.total"] == 1000 * 1024
    assert memory["mem.used"] == 400 * 1024
    assert memory["mem.buff_cache"] == 275 * 1024
    assert memory["mem.shared"] == 10 * 1024
    assert memory["mem.swap_used"] == 25 * 1024


def test_an_old_kernel_has_no_available_memory_and_it_is_made_up() -> None:
    text = "MemTotal: 1000 kB\nMemFree: 300 kB\nBuffers: 50 kB\nCached: 200 kB\n"
    memory = found(None, {"/proc/meminfo": text})
    assert memory["mem.available"] == 550 * 1024
    assert "mem.shared" not in memory


def test_traffic_leaves_out_the_loopback_and_partitions() -> None:
    totals = found(None, AFTER)
    assert (totals["net.received"], totals["net.sent"]) == (1024, 512)
    assert (totals["disk.read"], totals["disk.written"]) == (102 * 512, 206 * 512)


def test_load_uptime_and_temperature() -> None:
    other = found(None, AFTER)
    assert (other["load.avg1"], other["load.avg5"], other["load.avg15"]) == (0.52, 0.41, 0.30)
    assert other["uptime"] == 3725.5
    assert other["temp.zone0"] == other["temp.max"] == 48.312
    assert "temp.zone1" not in other  # minus 274 degrees: the sensor is not there


def test_the_kernel_of_this_machine_is_understood() -> None:
    paths = ["/proc/stat", "/proc/meminfo", "/proc/loadavg", "/proc/uptime", "/proc/net/dev"]
    texts = {path: Path(path).read_text() for path in paths}
    keys = {reading.info.key for reading in readings("dut.x", None, texts)}
    assert {"dut.x.mem.used", "dut.x.load.avg1", "dut.x.net.sent", "dut.x.uptime"} <= keys


def test_nothing_comes_of_nothing() -> None:
    assert found(None, {}) == {}
    assert found({}, {}) == {}


@given(
    st.dictionaries(
        st.sampled_from(sorted(AFTER)), st.text(alphabet="cpu0123456789 .:-\nkBMemTotalFree")
    ),
    st.sampled_from(sorted(AFTER)),
    st.integers(0, 200),
)
def test_damaged_texts_break_nothing(noise: dict[str, str], path: str, cut: int) -> None:
    torn = {**AFTER, path: AFTER[path][:cut]}
    for before, after in ((noise, torn), (torn, noise), (BEFORE, torn)):
        for reading in readings("dut.x", before, after):
            assert reading.info.key == metric_key(reading.info.key)
            assert reading.value == reading.value


def test_a_name_becomes_a_segment() -> None:
    assert segment("Rpi-4.lab") == "rpi_4_lab"
    assert segment("") == "_"
