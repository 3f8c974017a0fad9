"""The command line as users run it: in a process of its own, without this machine's settings."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

START_S = 60.0
_NOWHERE = "http://127.0.0.1:9"  # a Hub that refuses connections, so that no test uses the network
_LISTENS = re.compile(r"listens on (http://\S+)")


@dataclass(frozen=True, slots=True)
class Output:
    """How a command ended."""

    status: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Serving:
    """A running `openworks serve`."""

    url: str
    banner: str
    process: subprocess.Popen[str]

    def stop(self, number: signal.Signals) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(30)


@dataclass(frozen=True, slots=True)
class Command:
    """Runs `openworks` in a folder of its own, which is also its home."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(
        self, *arguments: str | Path, text: str = "", timeout_s: float = 90.0, **variables: str
    ) -> Output:
        """Run to the end, with `text` on standard input."""
        done = subprocess.run(
            self._command(arguments),
            input=text,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self._environment(variables),
            timeout=timeout_s,
            check=False,
        )
        return Output(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def started(self, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
        """Run until the block ends; standard error is a pipe."""
        with subprocess.Popen(
            self._command(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self._environment({}),
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    @contextmanager
    def serve(self, *arguments: str | Path, **variables: str) -> Iterator[Serving]:
        """Serve on a free port until the block ends."""
        with (
            (self.folder / "serve.err").open("a+") as errors,
            subprocess.Popen(
                self._command(("serve", "--port", "0", *arguments)),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=self.folder,
                env=self._environment(variables),
            ) as process,
        ):
            try:
                banner = _read_banner(process)
                match = _LISTENS.search(banner)
                assert match is not None, banner + (self.folder / "serve.err").read_text()
                yield Serving(match[1], banner, process)
            finally:
                process.kill()

    def _command(self, arguments: tuple[str | Path, ...]) -> list[str]:
        return [sys.executable, "-m", "openworks", *map(str, arguments)]

    def _environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OPENWORKS_", "OPENAI_", "HF_"))
        }
        return {
            **inherited,
            "HOME": str(self.folder),
            "HF_ENDPOINT": _NOWHERE,
            **self.environment,
            **variables,
        }


def _read_banner(process: subprocess.Popen[str]) -> str:
    """Read standard output up to the end of the example, without waiting for ever."""
    assert process.stdout is not None
    end_s = time.monotonic() + START_S
    banner = ""
    while time.monotonic() < end_s:
        ready, _, _ = select.select([process.stdout], [], [], 0.1)
        if ready:
            chunk = os.read(process.stdout.fileno(), 65536).decode()
            banner += chunk
            if not chunk or "-d '" in banner:
                break
    return banner
