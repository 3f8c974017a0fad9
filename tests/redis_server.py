"""A real Redis or Valkey server on a free port of loopback, for the tests that share counts."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

_START_S = 20.0


def find_redis() -> str:
    """Return the server's program; without one, skip the test, or fail where CI is set."""
    program = shutil.which("valkey-server") or shutil.which("redis-server")
    if program is None:
        reason = "Neither valkey-server nor redis-server is installed."
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return program


class RedisServer:
    """A running server that keeps nothing on disk, and can be killed and started again."""

    def __init__(self, folder: Path, *, persist: bool = False) -> None:
        """Start it and wait until it answers.

        Args:
            folder: Where it works.
            persist: Whether it writes each change to a file, and knows it again after `start`.
        """
        self._program = find_redis()
        self._folder = folder
        self._persist = persist
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it (again) at the same address."""
        assert self._process is None
        flags = {
            "--port": str(self.port),
            "--bind": "127.0.0.1",
            "--dir": str(self._folder),
            "--save": "",
            "--appendonly": "yes" if self._persist else "no",
            "--appendfsync": "always",
        }
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, *(part for flag in flags.items() for part in flag)],
                stdout=log,
                stderr=log,
            )
        deadline_s = time.monotonic() + _START_S
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "redis.log").read_text()
            assert time.monotonic() < deadline_s, "The server does not answer."
            time.sleep(0.01)

    def kill(self) -> None:
        """End it as the kernel would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
