"""Servers that are killed and started again where they were."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gateway.processes import free_port, wait_for_port


@dataclass(slots=True)
class Server:
    """A server on a port and a data folder of its own, which outlive its processes."""

    data: Path
    flags: dict[str, str] = field(default_factory=dict)
    """Settings as environment variables have them, such as `DATABASE__URL`."""
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start it and wait until it listens."""
        self.data.mkdir(parents=True, exist_ok=True)
        command = [*(sys.executable, "-m", "openworks", "serve", "--port", str(self.port))]
        environment = {f"OPENWORKS_{key}": value for key, value in self.flags.items()}
        with (self.data / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--data-dir", str(self.data)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        wait_for_port(self.process, self.port)

    def kill(self) -> None:
        """End it and all its children at once, as when the power fails."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self) -> int:
        """End it as an operator would; return its exit status."""
        assert self.process is not None
        self.process.terminate()
        status = self.process.wait(60)
        self.process = None
        return status
