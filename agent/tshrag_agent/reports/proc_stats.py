"""PURE. Texts of /proc and /sys from a DUT without software of ours -> readings.

The texts come by path; what a kernel or a busybox lacks is left out here too. CPU figures hold
for the interval between two texts, never since boot; the time in a guest is not counted twice.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import NamedTuple

from tshrag_common.metrics import MetricInfo, MetricType


class Reading(NamedTuple):
    """One number in the base unit of its metric; its time is that of the texts."""

    info: MetricInfo
    value: float


_CPU = ("usr", "nice", "sys", "idle", "iowait", "irq", "soft", "steal", "guest", "gnice")
_DISK = re.compile(r"(?:[shv]d[a-z]+|xvd[a-z]+|mmcblk[0-9]+|nvme[0-9]+n[0-9]+|mtdblock[0-9]+)")
_ZONE = re.compile(r"/sys/class/thermal/thermal_zone([0-9]{1,3})/temp")
_SECTOR_BYTES = 512  # of /proc/diskstats, whatever the disk has
_CELSIUS = (-60.0, 250.0)  # beyond it a sensor is broken or absent


def readings(
    prefix: str, before: Mapping[str, str] | None, after: Mapping[str, str]
) -> list[Reading]:
    """Return what `after` says, under keys that begin with `prefix`; CPU needs `before` too."""
    found: list[Reading] = []
    if before is not None:
        found += _cpu(prefix, before.get("/proc/stat", ""), after.get("/proc/stat", ""))
    found += _memory(prefix, after.get("/proc/meminfo", ""))
    found += _load(prefix, after.get("/proc/loadavg", ""))
    found += _uptime(prefix, after.get("/proc/uptime", ""))
    found += _network(prefix, after.get("/proc/net/dev", ""))
    found += _disks(prefix, after.get("/proc/diskstats", ""))
    found += _thermal(prefix, after)
    return found


@cache
def info(key: str, unit: str = "", kind: MetricType = "gauge") -> MetricInfo:
    """Return one and the same MetricInfo for a key, so that it is compared by identity."""
    return MetricInfo(key=key, unit=unit, type=kind)


def segment(name: str) -> str:
    """Return a name of a host or DUT as a segment of a key."""
    return re.sub(r"[^a-z0-9_]", "_", name.lower()) or "_"


def _cpu(prefix: str, before: str, after: str) -> Iterator[Reading]:
    old, new = _jiffies(before), _jiffies(after)
    if not old or not new:
        return
    spent = {name: new[name] - old.get(name, 0) for name in new}
    spent["usr"] -= spent.get("guest", 0)  # the kernel counts a guest in both
    spent["nice"] -= spent.get("gnice", 0)
    total = sum(spent.values())
    if total <= 0 or any(new[name] < old.get(name, 0) for name in ("usr", "sys", "idle")):
        return  # it was booted in between
    for name, jiffies in spent.items():
        yield Reading(info(f"{prefix}.cpu.{name}", "%"), max(0, jiffies) / total)
    idle = spent["idle"] + spent.get("iowait", 0)
    yield Reading(info(f"{prefix}.cpu.used", "%"), min(1.0, max(0.0, 1 - idle / total)))


def _jiffies(text: str) -> dict[str, int]:
    for line in text.splitlines():
        if line.startswith("cpu "):
            numbers = [_number(word) for word in line.split()[1:]]
            if len(numbers) < 4 or None in numbers:
                return {}
            return {name: int(n or 0) for name, n in zip(_CPU, numbers, strict=False)}
    return {}


def _memory(prefix: str, text: str) -> Iterator[Reading]:
    known: dict[str, float] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        number = _number((rest.split() or [""])[0])
        if number is not None:
            known[name] = number * 1024  # "kB" there are KiB
    total, free = known.get("MemTotal"), known.get("MemFree")
    if total is None or free is None:
        return
    cached = sum(known.get(name, 0.0) for name in ("Buffers", "Cached", "SReclaimable"))
    available = known.get("MemAvailable", free + cached)  # kernels before 3.14 have none
    numbers = {
        "total": total,
        "used": max(0.0, total - available),
        "free": free,
        "shared": known.get("Shmem"),
        "buff_cache": cached,
        "available": available,
    }
    if "SwapTotal" in known and "SwapFree" in known:
        numbers["swap_used"] = known["SwapTotal"] - known["SwapFree"]
    for name, number in numbers.items():
        if number is not None:
            yield Reading(info(f"{prefix}.mem.{name}", "MiB"), number)


def _load(prefix: str, text: str) -> Iterator[Reading]:
    for minutes, word in zip((1, 5, 15), text.split(), strict=False):
        number = _number(word)
        if number is not None:
            yield Reading(info(f"{prefix}.load.avg{minutes}"), number)


def _uptime(prefix: str, text: str) -> Iterator[Reading]:
    number = _number((text.split() or [""])[0])
    if number is not None:
        yield Reading(info(f"{prefix}.uptime", "s"), number)


def _network(prefix: str, text: str) -> Iterator[Reading]:
    """Add up all interfaces but the loopback; old kernels write no space behind the colon."""
    rows = (line.partition(":")[::2] for line in text.splitlines() if ":" in line)
    columns = [rest.split() for name, rest in rows if name.strip() != "lo"]
    yield from _totals(f"{prefix}.net", {"received": 0, "sent": 8}, columns, 16, 1)


def _disks(prefix: str, text: str) -> Iterator[Reading]:
    """Add up whole disks; their partitions would count twice."""
    rows = (line.split() for line in text.splitlines())
    columns = [row[3:] for row in rows if len(row) > 3 and _DISK.fullmatch(row[2])]
    yield from _totals(f"{prefix}.disk", {"read": 2, "written": 6}, columns, 7, _SECTOR_BYTES)


def _totals(
    prefix: str, wanted: dict[str, int], rows: Iterable[list[str]], least: int, factor: int
) -> Iterator[Reading]:
    whole = [row for row in rows if len(row) >= least]
    if not whole:
        return
    for name, column in wanted.items():
        total = sum(_number(row[column]) or 0.0 for row in whole) * factor
        yield Reading(info(f"{prefix}.{name}", "MB", "counter"), total)


def _thermal(prefix: str, texts: Mapping[str, str]) -> Iterator[Reading]:
    hottest: list[float] = []
    for path, text in texts.items():
        zone, number = _ZONE.fullmatch(path), _number(text.strip())
        if zone is None or number is None:
            continue
        celsius = number / 1000
        if _CELSIUS[0] <= celsius <= _CELSIUS[1]:
            hottest.append(celsius)
            yield Reading(info(f"{prefix}.temp.zone{zone[1]}", "C"), celsius)
    if hottest:
        yield Reading(info(f"{prefix}.temp.max", "C"), max(hottest))


def _number(word: str) -> float | None:
    if not re.fullmatch(r"-?[0-9]{1,19}(?:\.[0-9]{1,9})?", word, re.ASCII):
        return None
    return float(word)
