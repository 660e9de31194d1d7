"""Loads as artifacts: where they come from, how they are packed, checked and handed on."""
