"""``python -m tshrag_agent``: the same as ``tshrag-agent``."""

from tshrag_agent.cli import main

main()
