from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.support.ssh_server import SshServer
from tshrag_agent.host_keys import host_key_lines
from tshrag_agent.settings import AgentSettings, DutTable
from tshrag_agent.transport.ways import SshWay
from tshrag_common.errors import NotFound, Refused


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SshServer]:
    made = SshServer("board", tmp_path / "board")
    made.start()
    yield made
    made.stop()


def settings_with(way: SshWay) -> AgentSettings:
    return AgentSettings(dut=(DutTable(id="pi", kind="pi", ssh=way),))


async def test_a_new_key_is_shown_and_pinned_only_when_that_is_asked_for(
    server: SshServer, tmp_path: Path
) -> None:
    file = tmp_path / "pi.pub"
    file.write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOld old@key\n")
    settings = settings_with(msgspec.structs.replace(server.way(), host_key=str(file)))
    key = " ".join(server.host_key.split()[:2])
    lines, is_same = await host_key_lines(settings, "pi", pin=False)
    assert (is_same, lines[0]) == (False, "pinned   ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOld")
    assert lines[1].startswith(f"answers  {key} (SHA256:")
    assert "old@key" in file.read_text()
    lines, is_same = await host_key_lines(settings, "pi", pin=True)
    assert (is_same, file.read_text()) == (True, f"{key}\n")
    lines, is_same = await host_key_lines(settings, "pi", pin=False)
    assert (is_same, lines[-1]) == (True, "the same")


async def test_a_key_in_the_settings_is_not_written_over(server: SshServer) -> None:
    way = msgspec.structs.replace(server.way(), host_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOld")
    with pytest.raises(Refused, match="stands in the settings"):
        await host_key_lines(settings_with(way), "pi", pin=True)
    with pytest.raises(NotFound, match="nearest: pi"):
        await host_key_lines(settings_with(way), "p", pin=False)
