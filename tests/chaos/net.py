"""A lab host with a network of its own: a namespace, a cable, and rules that swallow packets.

Needs root, ``ip`` and ``nft``. What is swallowed is gone without a word, in either direction or in
both: that is what a broken switch does, and what ``ip link down`` does not.
"""

import os
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Literal

Way = Literal["both", "to-bus", "from-bus"]
Weather = Literal["256 kbit/s", "5 % loss"]
_SLOW = ("root", "tbf", "rate", "256kbit", "burst", "16kb", "latency", "400ms")


def can_partition() -> str:
    """Return why there can be no namespaces here; empty when there can."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [name for name in ("ip", "nft", "nsenter") if shutil.which(name) is None]
    if missing:
        return f"needs {', '.join(missing)}: apt-get install iproute2 nftables"
    probe = f"tsprobe{secrets.token_hex(3)}"
    try:
        _run("ip", "netns", "add", probe)
        _run("ip", "netns", "del", probe)
    except subprocess.CalledProcessError as error:
        return f"no namespaces: {error.stderr.decode(errors='replace').strip()}"
    return ""


class Host:
    """One namespace with a cable to this machine."""

    def __init__(self, number: int, subnet: tuple[int, int]) -> None:
        self._number = number
        self.name = f"ts{subnet[0]}-{subnet[1]}-{number}"
        self._cable = f"tsv{subnet[0]}.{subnet[1]}.{number}"[:15]
        base = f"10.{subnet[0]}.{subnet[1]}"
        self.gateway, self.address = f"{base}.{number * 4 + 1}", f"{base}.{number * 4 + 2}"
        self._table = f"ts_{subnet[0]}_{subnet[1]}_{number}"
        self._has_rules: Way | None = None
        self._is_slow = False

    def make(self) -> "Host":
        inside = ("ip", "-n", self.name)
        _run("ip", "netns", "add", self.name)
        _run("ip", "link", "add", self._cable, "type", "veth", "peer", "eth0", "netns", self.name)
        _run("ip", "addr", "add", f"{self.gateway}/30", "dev", self._cable)
        _run("ip", "link", "set", self._cable, "up")
        _run(*inside, "addr", "add", f"{self.address}/30", "dev", "eth0")
        for device in ("lo", "eth0"):
            _run(*inside, "link", "set", device, "up")
        return self

    @property
    def prefix(self) -> list[str]:
        """Return what makes a program run on this host.

        Every third host is entered by ``ip netns exec``, which hides the control groups, so that
        the shepherd there has to find processes by walking /proc.
        """
        if self._number % 3 == 2:
            return ["ip", "netns", "exec", self.name]
        return ["nsenter", f"--net=/run/netns/{self.name}"]

    def swallow(self, way: Way) -> None:
        """Let packets of the cable vanish."""
        if way in ("both", "from-bus"):
            self._drop([*self.prefix, "nft"], "iifname eth0")
        if way in ("both", "to-bus"):
            self._drop(["nft"], f'iifname "{self._cable}"')
        self._has_rules = way

    def swallow_board(self, port: int) -> None:
        """Let packets from and to a board, which is on this host's loopback, vanish."""
        self._drop([*self.prefix, "nft"], f"tcp dport {port}", f"tcp sport {port}")
        self._has_rules = "from-bus"

    def worsen(self, weather: Weather) -> None:
        """Make the cable slow, or lossy, in both directions."""
        if weather == "256 kbit/s":
            _run(*self.prefix, "tc", "qdisc", "add", "dev", "eth0", *_SLOW)
            _run("tc", "qdisc", "add", "dev", self._cable, *_SLOW)
            self._is_slow = True
        else:
            lossy = "numgen random mod 100 < 5"
            self._drop([*self.prefix, "nft"], f"iifname eth0 {lossy}")
            self._drop(["nft"], f'iifname "{self._cable}" {lossy}')
            self._has_rules = "both"

    def heal(self) -> None:
        if self._is_slow:
            self._is_slow = False
            _run(*self.prefix, "tc", "qdisc", "del", "dev", "eth0", "root")
            _run("tc", "qdisc", "del", "dev", self._cable, "root")
        way, self._has_rules = self._has_rules, None
        if way in ("both", "from-bus"):
            _run(*self.prefix, "nft", "delete", "table", "inet", self._table)
        if way in ("both", "to-bus"):
            _run("nft", "delete", "table", "inet", self._table)

    def remove(self) -> None:
        self.heal()
        subprocess.run(["ip", "link", "del", self._cable], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)

    def _drop(self, nft: list[str], *matches: str) -> None:
        rules = "".join(f"    {match} drop\n" for match in matches)
        hook = "type filter hook input priority -10; policy accept;"
        text = f"table inet {self._table} {{\n  chain in {{\n    {hook}\n{rules}  }}\n}}\n"
        subprocess.run([*nft, "-f", "-"], input=text.encode(), check=True, capture_output=True)


def a_subnet() -> tuple[int, int]:
    """Return two numbers of 10.A.B.0/24 that nobody on this machine uses."""
    used = Path("/proc/net/fib_trie").read_text()
    while True:
        first, second = 64 + secrets.randbelow(64), secrets.randbelow(256)
        if f"10.{first}.{second}." not in used:
            return first, second


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)
