"""``make chaos``: real processes under real faults; a table at the end, results as JSON.

python -m tests.chaos.run [--set smoke|quick|full] [--repeat N] [--out FOLDER] [FAULT ...]

With ``--into FILE`` each repetition is a line of that file as soon as it is over, in one lab after
the other; what a run that was cut has left out, the next one with the same file does.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.run", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="FAULT", help="F1, F8, panic ...; else all")
    parser.add_argument("--set", choices=("smoke", "quick", "full"), default="quick", dest="which")
    parser.add_argument("--repeat", type=int, help="repetitions of each fault")
    parser.add_argument("--out", type=Path, help="folder of chaos.json and chaos.md")
    parser.add_argument("--into", type=Path, metavar="FILE", help="keep each repetition, go on")
    parser.add_argument("--chapter", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--keep", type=Path, help="keep the history in this folder")
    parser.add_argument("--unsafe", metavar="MUTANT[+MUTANT]",
                        help="take rules out of the product: each must be noticed")  # fmt: skip
    said = parser.parse_args(argv)
    if said.unsafe:
        os.environ["TSHRAG_CHAOS_UNSAFE"] = said.unsafe
    if not os.environ.get("TSHRAG_HISTORY") and (said.chapter or not said.into):
        _again(said.keep)
    from tests.chaos import conduct, mutants

    if said.into and not said.chapter:
        sys.exit(conduct.in_chapters(said.which, said.names, said.repeat, said.into.absolute()))
    what = (said.which, said.names, said.repeat, said.out, said.into)
    missed, rules = asyncio.run(conduct.conduct(*what))
    if said.unsafe:
        left = mutants.unnoticed(said.unsafe, missed, rules)
        print(f"{'+'.join(left)}: NOT NOTICED" if left else f"{said.unsafe}: noticed")
        missed = bool(left)
    sys.exit(int(missed))


def _again(keep: Path | None) -> None:
    """Start this program once more, with the switches that are read when modules are loaded."""
    with tempfile.TemporaryDirectory(prefix="tshrag-history-") as made:
        folder = str(keep.absolute()) if keep else made
        Path(folder).mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "TSHRAG_TEST_MODE": "1", "TSHRAG_HISTORY": folder}
        done = subprocess.run([sys.executable, "-m", "tests.chaos.run", *sys.argv[1:]],
                              env=environment, cwd=ROOT, check=False)  # fmt: skip
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
