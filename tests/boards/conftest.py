"""Boards that take minutes: only by ``make boards``."""

import os

collect_ignore_glob = [] if os.environ.get("TSHRAG_BOARDS") else ["test_*.py"]
