"""Git repositories made for a test, and what makes a load of a directory."""

import subprocess
from pathlib import Path

from tests.support.debian import need_program

MANIFEST = b'name = "iperf"\nversion = "3.1"\n'


class Repository:
    """A work tree with a bare mirror beside it; `commit` writes files and returns the commit."""

    def __init__(self, base: Path, name: str = "iperf-module") -> None:
        self._git = need_program("git", "git")
        self.work, self.bare = base / f"{name}.work", base / f"{name}.git"
        self.work.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        """Run git in the work tree, with an author and no configuration of this machine."""
        named = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
        done = subprocess.run(
            [self._git, *named, *arguments],
            cwd=self.work,
            env={"PATH": "/usr/bin:/bin", "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(self.work)},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def commit(self, files: dict[str, bytes], *executable: str) -> str:
        for name, data in files.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o755 if name in executable else 0o644)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=change")
        return self.git("rev-parse", "HEAD")

    def publish(self) -> str:
        """Bring the bare mirror up to date; return its path."""
        if not self.bare.exists():
            self.git("clone", "--quiet", "--bare", ".", str(self.bare))
        else:
            self.git("push", "--quiet", "--mirror", str(self.bare))
        return str(self.bare)
