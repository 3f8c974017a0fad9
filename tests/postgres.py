"""A Postgres of the tests' own, in a folder that goes with it, where one is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

START_S = 30.0


def is_installed() -> bool:
    """Whether there are a server to start and a driver to reach it."""
    programs = all(shutil.which(name) for name in ("initdb", "postgres"))
    return programs and find_spec("asyncpg") is not None


@contextmanager
def running_postgres() -> Iterator[str]:
    """Start an empty server on this machine's own address; yield its URL."""
    with made_postgres() as server:
        server.start()
        yield server.url


@contextmanager
def made_postgres() -> Iterator[Postgres]:
    """Yield a server with an empty database, which is not started yet."""
    # Postgres does not run as root; a folder of pytest's own would be closed to anybody else.
    user = "nobody" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="openworks-postgres-"))
    try:
        if user is not None:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        options = ["--username=test", "--auth=trust", "--encoding=UTF8", "--no-sync"]
        subprocess.run(
            [_program("initdb"), *options, str(folder / "data")],
            user=user,
            check=True,
            capture_output=True,
            cwd=folder,
        )
        server = Postgres(folder, user)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Postgres:
    """A server that can be stopped, and started again with what it holds."""

    def __init__(self, folder: Path, user: str | None) -> None:
        self._folder = folder
        self._user = user
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of its database."""
        return f"postgresql://test@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        settings = [f"port={self._port}", "listen_addresses=127.0.0.1", "fsync=off"]
        settings.append(f"unix_socket_directories={self._folder}")
        log = self._folder / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [_program("postgres"), "-D", str(self._folder / "data"), *_each("-c", settings)],
                user=self._user,
                stdout=output,
                stderr=output,
                cwd=self._folder,
            )
        _wait_for(self._process, log)

    def stop(self) -> None:
        """End it, with every connection to it; nothing when it does not run."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # Postgres's own "fast" shutdown
            self._process.wait(START_S)
            self._process = None


def _program(name: str) -> str:
    found = shutil.which(name)
    assert found is not None
    return str(Path(found).resolve())  # it looks for its library beside itself


def _each(flag: str, values: list[str]) -> list[str]:
    return [part for value in values for part in (flag, value)]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_for(server: subprocess.Popen[bytes], log: Path) -> None:
    """Return once it takes connections; its port is open a moment before."""
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s and server.poll() is None:
        if "ready to accept connections" in log.read_text():
            return
        time.sleep(0.05)
    raise RuntimeError(f"Postgres did not start: {log.read_text()[-2000:]}")
