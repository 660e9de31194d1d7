"""PURE: a finished run as people and machines want to read it."""
