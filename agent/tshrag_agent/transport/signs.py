"""PURE: what a console tells of its DUT without being asked: boots, prompts, crashes.

Bytes come in any pieces; what is found does not depend on how they were cut. A line is looked at
when it is whole (or 1,024 bytes long), a login prompt as soon as it stands there. A quick look for
a few words goes before everything else, so that a line that floods costs next to nothing.
"""

import re

import msgspec

from tshrag_common.signs import CRASHES, SignKind

LINE_MOST = 1024
_TEXT_MOST = 200

_WORDS = (
    *(b"anic", b"Oops", b"BUG", b"WARNING: ", b"INFO: ", b"lockup", b"LOCKUP"),
    *(b"U-Boot", b"barebox", b"GRUB", b"Linux version", b"Unable to handle"),
)
_WORDS_OF_ANY_CASE = (b"watchdog", b"wdt")
"""Where none of these stands in some bytes, no pattern fits in them."""

_PATTERNS: tuple[tuple[SignKind, re.Pattern[bytes]], ...] = (
    ("panic", re.compile(rb"Kernel panic - not syncing|\bpanic\(cpu ")),
    ("kasan", re.compile(rb"BUG: KASAN: ")),
    ("kfence", re.compile(rb"BUG: KFENCE: ")),
    ("lockup", re.compile(rb"soft lockup|hard LOCKUP|INFO: task .{1,60} blocked for more than"
                          rb"|INFO: rcu_\w{1,20} (?:self-)?detected .{0,20}stall")),
    ("lockdep", re.compile(rb"WARNING: (?:possible (?:circular|recursive) locking"
                           rb"|inconsistent lock state|suspicious RCU usage"
                           rb"|bad unlock balance|held lock freed)")),
    ("oops", re.compile(rb"\bOops(?:: | - |\[)|Unable to handle kernel ")),
    ("bug", re.compile(rb"\bBUG: |kernel BUG at ")),
    ("watchdog", re.compile(rb"(?i:watchdog|\bwdt).{0,40}(?:reset|reboot|timeout|did not stop)"
                            rb"|(?i:reset).{0,40}(?i:watchdog|\bwdt\b)")),
    ("bootloader", re.compile(rb"^(?:\x1b\[[0-9;?]{0,8}[A-Za-z]|\x00|\s){0,16}"
                              rb"(?:U-Boot (?:[ST]PL )?\d{4}\.\d\d|barebox \d{4}\.|GNU GRUB )")),
    ("kernel", re.compile(rb"(?:^|\] |\s)Linux version \d+\.\d")),
)  # fmt: skip
"""One sign a line, the first that fits: a KASAN report is no plain BUG."""

_PROMPT = re.compile(rb"(?<![\w.-])(?!(?i:last) )[\w.-]{1,64} login: ")
_PROMPT_WORD = b"login: "
_CONTROLS = re.compile(rb"\x1b\[[0-9;?]{0,16}[A-Za-z]|[\x00-\x1f\x7f]")
_FIRST_STAGE = re.compile(rb"U-Boot [ST]PL ")
_LINE_END = re.compile(rb"[\r\n]")


class Sign(msgspec.Struct, frozen=True):
    """Something a DUT has said. ``boot`` counts its boots since this agent watches it."""

    kind: SignKind
    text: str
    boot: int

    @property
    def is_crash(self) -> bool:
        return self.kind in CRASHES


class Signs:
    """Reads one console."""

    def __init__(self) -> None:
        self._line = b""  # the unfinished one
        self._prompted = False  # in this line already
        self._stage = -1
        self.boot = 0

    def feed(self, data: bytes) -> list[Sign]:
        """Return what `data` completes, in the order of the bytes."""
        text = self._line + data
        end = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
        whole, rest = text[:end], text[end:]
        found: list[Sign] = []
        if _may_tell(whole):
            for line in _LINE_END.split(whole)[:-1]:
                self._look_at(line, found)
                self._prompted = False
        elif end:
            self._prompted = False
        while len(rest) > LINE_MOST:
            if _may_tell(rest[:LINE_MOST]):
                self._look_at(rest[:LINE_MOST], found)
            self._prompted = False
            rest = rest[LINE_MOST:]
        self._line = rest
        self._look_for_prompt(rest, found)
        return found

    def _look_at(self, line: bytes, found: list[Sign]) -> None:
        while len(line) > LINE_MOST:
            self._look_at(line[:LINE_MOST], found)
            self._prompted = False
            line = line[LINE_MOST:]
        self._look_for_prompt(line, found)
        for kind, pattern in _PATTERNS:
            if pattern.search(line):
                self._count(kind, line)
                found.append(Sign(kind, _shown(line), self.boot))
                return

    def _look_for_prompt(self, line: bytes, found: list[Sign]) -> None:
        if self._prompted or _PROMPT_WORD not in line:
            return
        prompt = _PROMPT.search(line[:LINE_MOST])
        if prompt:
            self._prompted = True
            self._stage = 3
            found.append(Sign("login", _shown(prompt[0]), self.boot))

    def _count(self, kind: SignKind, line: bytes) -> None:
        """Count a boot where its stages begin anew: first stage, bootloader, kernel."""
        if kind == "bootloader":
            stage = 0 if _FIRST_STAGE.search(line) else 1
        elif kind == "kernel":
            stage = 2
        else:
            return
        if stage <= self._stage or self._stage < 0:
            self.boot += 1
        self._stage = stage


def _may_tell(data: bytes) -> bool:
    """Tell whether a sign may stand in `data`: a look that costs little."""
    for word in _WORDS:
        if word in data:
            return True
    folded = data.lower()
    return any(word in folded for word in _WORDS_OF_ANY_CASE) or _PROMPT_WORD in data


def _shown(line: bytes) -> str:
    """Return a line of a DUT as it may stand in an event: no controls, cut."""
    return _CONTROLS.sub(b" ", line).decode("utf-8", "replace").strip()[:_TEXT_MOST]
