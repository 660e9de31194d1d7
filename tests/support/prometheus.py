"""Debian's Prometheus with its remote-write receiver, for tests."""

import json
import os
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from tests.support.s3 import a_free_port
from tests.support.waiting import wait_for


class PrometheusServer:
    """One server with a folder of its own; it can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.program = shutil.which("prometheus")
        if self.program is None:
            pytest.skip("no prometheus: apt-get install prometheus")
        self.folder, self.port = folder, a_free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 1h}\nstorage: {tsdb: {out_of_order_time_window: 30m}}\n"
        )

    def start(self) -> None:
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            [
                str(self.program), f"--config.file={self.folder}/prometheus.yml",
                f"--storage.tsdb.path={self.folder}/data", "--web.enable-remote-write-receiver",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdout=log, stderr=log, env={**os.environ, "HOME": str(self.folder)},
        )  # fmt: skip
        log.close()
        wait_for(self.is_ready, within_s=50)

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def query(self, text: str) -> dict[tuple[tuple[str, str], ...], list[tuple[float, float]]]:
        """Return labels -> (seconds, value) of a range selector, as ``name[1h]``."""
        asked = urllib.parse.urlencode({"query": text})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{asked}", timeout=30) as answer:
            told = json.loads(answer.read())
        return {
            tuple(sorted(each["metric"].items())): [
                (float(at), float(value)) for at, value in each["values"]
            ]
            for each in told["data"]["result"]
        }
