import os
import subprocess
import sys

import pytest

from tests.support.shepherds import is_alive
from tests.support.waiting import wait_for
from tshrag_agent.shepherd import proctree
from tshrag_agent.shepherd.groups import MARK
from tshrag_agent.shepherd.limits import Limits


def test_a_group_whose_process_never_started_holds_nobody() -> None:
    assert proctree.TreeGroups().take(Limits(), "s:a").pids() == []


def test_a_group_without_a_mark_would_hold_everybody_and_is_refused() -> None:
    with pytest.raises(ValueError, match="every process of the host"):
        proctree.TreeGroups().take(Limits(), "")


def test_a_group_holds_session_mark_and_descent_and_nobody_else() -> None:
    code = "setsid sleep 50 & env -i setsid sleep 50 & sleep 50 & wait"
    other = subprocess.Popen(["sleep", "50"], start_new_session=True)
    groups = proctree.TreeGroups()
    group = groups.take(Limits(), "s:a")
    groups.take(Limits(), "s:b")  # a second attempt: orphans may belong to either
    main = subprocess.Popen(
        ["sh", "-c", code], start_new_session=True, env={**os.environ, MARK: "s:a"}
    )
    group.bind(main.pid)
    wait_for(lambda: len(group.pids()) == 4)
    found = group.pids()
    assert other.pid not in found and os.getpid() not in found
    group.kill()
    wait_for(lambda: not any(is_alive(pid) for pid in found))
    assert group.is_empty() and is_alive(other.pid)
    other.kill()
    for process in (main, other):
        process.wait()


def test_a_signal_reaches_only_the_process_that_was_meant() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        seen = proctree.process(child.pid)
        assert seen is not None
        proctree.kill_process(seen._replace(started=seen.started - 1))
        assert child.poll() is None
        proctree.kill_process(seen)
        assert child.wait(10) == -9
        assert proctree.process(child.pid) is None
