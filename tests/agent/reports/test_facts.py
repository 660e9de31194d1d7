from tshrag_agent.reports.facts import gather
from tshrag_agent.settings import AgentSettings, AgentTable
from tshrag_common.ids import AgentId


def test_programs_that_the_settings_name_are_looked_for_too() -> None:
    settings = AgentSettings(agent=AgentTable(name="a1", tools=("true", "no-such-program")))
    found = gather(AgentId("a1"), settings, "b", "0")
    assert "true" in found.tools
    assert "no-such-program" not in found.tools
