"""Processes of the product whose every SQLite transaction takes 200 ms more: F19.

python -m tests.chaos.slow MODULE ARGUMENT...
"""

import runpy
import sys
import time
from collections.abc import Callable
from typing import Any

from tshrag_agent.journal.store import Store
from tshrag_controller.store.writer import Worker

MORE_S = 0.2


def slowly(work: Callable[..., Any]) -> Callable[..., Any]:
    """Return `work` as a disk does it that is worn out."""

    def done(*given: Any) -> Any:
        time.sleep(MORE_S)
        return work(*given)

    return done


def main(module: str, *arguments: str) -> None:
    setattr(Store, "commit", slowly(Store.commit))  # noqa: B010  -- this is the fault
    run = Worker._run

    def only_writes(self: Worker, batch: Any) -> Any:
        return (slowly(run) if self._commit else run)(self, batch)

    setattr(Worker, "_run", only_writes)  # noqa: B010
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
