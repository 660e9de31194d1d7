"""The agent's disk: what it holds, and what it has done and not yet been able to tell."""
