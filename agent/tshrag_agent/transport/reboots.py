"""PURE: signs in a stream that a DUT has booted again. Signs, not proof: any text may be data."""

import re

_BANNERS = (b"Linux version ", b"Booting Linux", b"U-Boot ", b"Uncompressing Linux")
_OVERLAP_BYTES = 256
_LOOKS_MOST = 8


class RebootSigns:
    """Remembers whether a banner or a login prompt came by, and when to look what is true.

    A look disturbs (a newline stops many a bootloader), so it comes only in silence, and later
    each time.
    """

    def __init__(self, login_prompt: str, silence_s: float) -> None:
        self._login = re.compile(login_prompt.encode())
        self._wait_s = silence_s
        self._looks = 0
        self._tail = b""
        self.banner = self.prompt = False

    def feed(self, data: bytes) -> None:
        text = self._tail + data
        self.banner = self.banner or any(banner in text for banner in _BANNERS)
        self.prompt = self.prompt or self._login.search(text) is not None
        self._tail = text[-_OVERLAP_BYTES:]

    def look_due(self, silent_s: float) -> bool:
        """Tell whether to look now, after `silent_s` of silence; a yes counts as a look."""
        seen = self.banner or self.prompt
        if not seen or silent_s < self._wait_s or self._looks >= _LOOKS_MOST:
            return False
        self._looks += 1
        self._wait_s *= 2
        self._tail, self.prompt = b"", False
        return True
