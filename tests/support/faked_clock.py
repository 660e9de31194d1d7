"""A shell for simulated boards whose clock is not that of this machine, by libfaketime."""

from pathlib import Path

import pytest


class FakedClock:
    """``shell`` starts programs for which it is `set` seconds later than it is."""

    def __init__(self, folder: Path) -> None:
        library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
        if library is None:
            pytest.skip("needs faketime: apt-get install faketime")
        folder.mkdir(parents=True, exist_ok=True)
        self._offset = folder / "offset"
        self.shell = folder / "shell"
        self.shell.write_text(
            "#!/bin/sh\n"
            f"export LD_PRELOAD={library} FAKETIME_TIMESTAMP_FILE={self._offset}\n"
            "export FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1\n"
            'exec /bin/sh "$@"\n'
        )
        self.shell.chmod(0o755)
        self.set(0)

    def set(self, offset_s: float) -> None:
        """Set the clock, as somebody at the board would."""
        new = self._offset.with_suffix(".new")
        new.write_text(f"{offset_s:+f}")
        new.replace(self._offset)
