"""Bytes between a person and an agent, in both directions, through the bus and nobody's hands."""
