"""The real server in a process of its own.

python -m tests.server '{"models": ["model.gguf"], "data_dir": "/tmp/data"}'
"""

from __future__ import annotations

import asyncio
import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from openworks.app.logs import set_up_logs
from openworks.app.server import serve
from openworks.app.settings import load_settings
from openworks.app.state import make_catalog, make_weights, open_state
from openworks.core.ids import AccountId, KeyId
from openworks.ports.calls import CallRecord, Scope

START_S = 60.0
STOP_S = 30.0
SETTLE_S = 60.0
"""How long tests wait for what happens soon: the machine may be busy with something else."""


class ServerProcess:
    """A running server."""

    def __init__(self, flags: Mapping[str, Any], data_dir: Path) -> None:
        """Start it and wait until it listens.

        Args:
            flags: Settings by dotted key; the port and the data folder are chosen here.
            data_dir: Where it keeps its state and its log.
        """
        everything = {**flags, "server.port": 0, "data_dir": str(data_dir)}
        self.settings = load_settings(flags=everything)
        self.log = data_dir / "server.log"
        data_dir.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.server", json.dumps(everything)],
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=Path(__file__).parent.parent,
            )
        self.url = self._read_url()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, port = self.url.removeprefix("http://").rsplit(":", 1)
        return host, int(port)

    @property
    def pid(self) -> int:
        """The process's own id."""
        return self._process.pid

    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def stop(self) -> int:
        """End it as an operator would; return its exit status."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_S)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it as the kernel would."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def get(self, path: str) -> tuple[int, Any]:
        """Return the status and the decoded body of a JSON document."""
        connection = HTTPConnection(*self.address, timeout=SETTLE_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def engines(self) -> dict[str, dict[str, Any]]:
        """What /ready says of every loaded model, by its id."""
        _, body = self.get("/ready")
        return {row["model"]: row for row in body["engines"]}

    def in_flight(self) -> int:
        """How many requests are in the engines."""
        return sum(row["in_flight"] for row in self.engines().values())

    def engine_pids(self) -> list[int]:
        """The engine processes, the oldest first."""
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                command = (folder / "cmdline").read_bytes()
            except OSError:  # it ended while we looked
                continue
            if parent == self._process.pid and b"openworks.engines.host" in command:
                found.append(int(folder.name))
        return sorted(found)

    def records(self) -> list[CallRecord]:
        """What the ledger holds, newest first."""

        async def read() -> list[CallRecord]:
            async with open_state(self.settings) as state:
                return list(await state.records.list_recent(limit=10_000))

        return asyncio.run(read())

    def settled_records(self, count: int) -> list[CallRecord]:
        """What the ledger holds once it has at least `count` records, newest first."""
        wait_until(lambda: len(self.records()) >= count, what=f"{count} records")
        return self.records()

    def record_of(self, request_id: str) -> CallRecord:
        """The record of one call, once it is there."""
        found: list[CallRecord] = []

        def is_there() -> bool:
            found[:] = [record for record in self.records() if record.id == request_id]
            return bool(found)

        wait_until(is_there, what=f"the record of {request_id}")
        (record,) = found
        return record

    def make_key(
        self,
        *,
        account: str = "default",
        scopes: tuple[Scope, ...] = ("inference",),
        allowed_models: tuple[str, ...] | None = None,
        expires_at_s: float | None = None,
    ) -> tuple[KeyId, str]:
        """Make a key as the command line would; return its id and its secret."""

        async def make() -> tuple[KeyId, str]:
            async with open_state(self.settings) as state:
                key, secret = await state.keys.create(
                    name="test",
                    account_id=AccountId(account),
                    scopes=scopes,
                    allowed_models=allowed_models,
                    expires_at_s=expires_at_s,
                )
            return key.id, secret

        return asyncio.run(make())

    def revoke_key(self, key_id: KeyId) -> None:
        """Revoke a key as the command line would."""

        async def revoke() -> None:
            async with open_state(self.settings) as state:
                await state.keys.revoke(key_id)

        asyncio.run(revoke())

    def _read_url(self) -> str:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], START_S)
        line = self._process.stdout.readline().decode() if ready else ""
        if not line.startswith("READY "):
            self.kill()
            raise RuntimeError(f"The server did not start: {self.log.read_text()[-3000:]}")
        return line.split()[1]


def wait_until(is_so: Callable[[], bool], *, what: str) -> None:
    """Return once `is_so`; fail when it is not for long."""
    end_s = time.monotonic() + SETTLE_S
    while not is_so():
        if time.monotonic() > end_s:
            raise AssertionError(f"Waited {SETTLE_S:g} s in vain for {what}.")
        time.sleep(0.02)


async def main() -> None:
    """Serve with the settings of the command line, and print the address once it listens."""
    settings = load_settings(flags=json.loads(sys.argv[1]))
    set_up_logs(settings.log)
    catalog = await make_catalog(settings, make_weights(settings), on_progress=lambda *_: None)
    await serve(settings, catalog, on_ready=lambda url: print("READY", url, flush=True))


if __name__ == "__main__":
    asyncio.run(main())
