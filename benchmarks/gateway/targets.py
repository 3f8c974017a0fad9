"""What is measured: the bare upstream, bare nginx, other gateways, and openworks' own."""

from __future__ import annotations

import os
import shutil
import string
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gateway import openworks
from benchmarks.gateway.faults import BROKEN_JSON, WRONG_KEY
from benchmarks.gateway.processes import (
    TARGET_CORE,
    command_of,
    free_port,
    living,
    running,
    wait_for_port,
)
from benchmarks.gateway.request import Address
from benchmarks.gateway.upstream import Upstream

LITELLM = "litellm[proxy]==1.106.2"
WRITER = "openworks.storage.logbook"
"""Is in the command line of the process that writes openworks' logs."""
_FILES = Path(__file__).with_name("peers")
_KEY = "sk-bench"


class NotInstalledError(Exception):
    """A peer is not on this machine; says how to get it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Something that runs and answers chat requests."""

    address: Address
    pid: int
    repeats: bool = False
    """Whether it is asked the same thing each time, so that its cache answers."""
    data: Path | None = None
    """Where openworks keeps its database."""
    stream_factor: float = 1
    """How much longer streams are measured, so that some of a slow gateway's end."""
    not_its_job: frozenset[str] = frozenset()
    """Fault cases in which nothing is expected of it."""

    def gateway_pids(self) -> list[int]:
        """Return its processes, less those that run models."""
        return [pid for pid in living(self.pid) if "openworks.engines" not in command_of(pid)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where things lie while a run lasts."""

    upstream: Upstream
    folder: Path
    """For what is thrown away."""
    peers: Path
    """Where `install` puts the other gateways."""
    prepared: openworks.Prepared | None
    """None when openworks is not measured."""


Opener = Callable[[Places, ExitStack], Target]


@contextmanager
def open_target(name: str, places: Places) -> Iterator[Target]:
    """Start a target; it is ended with the block.

    Raises:
        NotInstalledError: It is not on this machine.
        RuntimeError: It did not start.
    """
    with ExitStack() as stack:
        yield OPENERS[name](places, stack)


def _direct(places: Places, _stack: ExitStack) -> Target:
    url = f"{places.upstream.base_url}/chat/completions"
    return Target(address=Address(url=url, key=_KEY), pid=places.upstream.pid)


def _nginx(places: Places, stack: ExitStack) -> Target:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise NotInstalledError("apt-get install nginx")
    port = free_port()
    folder = places.folder / f"nginx-{port}"
    folder.mkdir()
    configuration = _filled("nginx.conf", places, folder, port)
    return _started(
        [program, "-c", str(configuration), "-p", str(folder)],
        places,
        stack,
        Address(url=f"http://127.0.0.1:{port}/v1/chat/completions", key=_KEY),
        not_its_job=frozenset({WRONG_KEY, BROKEN_JSON}),
    )


def _litellm(places: Places, stack: ExitStack) -> Target:
    program = places.peers / "litellm" / "bin" / "litellm"
    if not program.exists():
        raise NotInstalledError("python -m benchmarks.gateway install")
    port = free_port()
    configuration = _filled("litellm.yaml", places, places.folder, port)
    return _started(
        [
            *(str(program), "--config", str(configuration), "--host", "127.0.0.1"),
            *("--port", str(port), "--num_workers", "1"),
        ],
        places,
        stack,
        Address(url=f"http://127.0.0.1:{port}/v1/chat/completions", key=_KEY),
        environment={
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_TELEMETRY": "False",
        },
        stream_factor=12,
    )


def _portkey(places: Places, stack: ExitStack) -> Target:
    script = "node_modules/@portkey-ai/gateway/build/start-server.js"
    program, node = places.peers / "portkey" / script, shutil.which("node")
    if node is None or not program.exists():
        raise NotInstalledError("python -m benchmarks.gateway install (needs node and npm)")
    port = free_port()
    return _started(
        [node, str(program), f"--port={port}", "--headless"],
        places,
        stack,
        Address(
            url=f"http://127.0.0.1:{port}/v1/chat/completions",
            key=_KEY,
            headers={
                "x-portkey-provider": "openai",
                "x-portkey-custom-host": places.upstream.base_url,
            },
        ),
        environment={
            "TRUSTED_CUSTOM_HOSTS": "localhost,127.0.0.1",
            "NODE_ENV": "production",
        },
        not_its_job=frozenset({WRONG_KEY}),
    )


def _openworks(gateway: str, *, repeats: bool = False) -> Opener:
    def open_one(places: Places, stack: ExitStack) -> Target:
        assert places.prepared is not None
        started = stack.enter_context(
            openworks.serving(places.prepared, places.folder, core=TARGET_CORE)
        )
        address = Address(url=started.gateway_url(gateway), key=places.prepared.key)
        return Target(address=address, pid=started.pid, repeats=repeats, data=started.data)

    return open_one


OPENERS: dict[str, Opener] = {
    "direct": _direct,
    "nginx": _nginx,
    "litellm": _litellm,
    "portkey": _portkey,
    "openworks": _openworks("everything"),
    "openworks, DLP": _openworks("dlp"),
    "openworks, cache hits": _openworks("everything", repeats=True),
    "openworks, no logs": _openworks("unlogged"),
}
USUAL = tuple(name for name in OPENERS if name != "openworks, no logs")


def _started(
    command: list[str],
    places: Places,
    stack: ExitStack,
    address: Address,
    *,
    environment: Mapping[str, str] | None = None,
    stream_factor: float = 1,
    not_its_job: frozenset[str] = frozenset(),
) -> Target:
    log = places.folder / f"{Path(command[0]).name}.log"
    process = stack.enter_context(
        running(command, core=TARGET_CORE, log=log, environment=environment, folder=places.folder)
    )
    try:
        wait_for_port(process, address.port)
    except RuntimeError as exc:
        raise RuntimeError(f"{command[0]}: {exc} {log.read_text()[-1000:]}") from exc
    return Target(
        address=address,
        pid=process.pid,
        stream_factor=stream_factor,
        not_its_job=not_its_job,
    )


def _filled(name: str, places: Places, folder: Path, port: int) -> Path:
    words = {
        "FOLDER": str(folder),
        "PORT": str(port),
        "UPSTREAM": str(places.upstream.port),
        "KEY": _KEY,
    }
    path = folder / name
    path.write_text(string.Template((_FILES / name).read_text()).safe_substitute(words))
    return path


def install(peers: Path) -> None:
    """Put the other gateways into a folder, in the versions that are measured."""
    litellm, portkey = peers / "litellm", peers / "portkey"
    if not (litellm / "bin" / "litellm").exists():
        subprocess.run([sys.executable, "-m", "venv", str(litellm)], check=True)
        subprocess.run([str(litellm / "bin" / "pip"), "install", "-q", LITELLM], check=True)
    npm = shutil.which("npm")
    if npm is None:
        print("Portkey is left out: there is no npm here.")
        return
    portkey.mkdir(parents=True, exist_ok=True)
    shutil.copy(_FILES / "package.json", portkey)
    subprocess.run([npm, "install", "--no-audit", "--no-fund"], cwd=portkey, check=True)


def versions(peers: Path) -> dict[str, str]:
    """Return the versions of what is measured and of what measures, as each tells it."""
    asked = {
        "wrk": ["wrk", "--version"],
        "nginx": [shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx", "-v"],
        "node": ["node", "--version"],
        "gcc": ["gcc", "--version"],
        "commit": ["git", "describe", "--always", "--dirty"],
    }
    found = {
        name: _first_line(command).removeprefix(f"{name} ").removeprefix("version: nginx/")
        for name, command in asked.items()
    }
    litellm = peers / "litellm" / "bin" / "pip"
    found["litellm"] = _first_line([str(litellm), "show", "litellm"], start="Version: ")
    portkey = peers / "portkey" / "node_modules" / "@portkey-ai" / "gateway" / "package.json"
    found["portkey"] = _first_line(["cat", str(portkey)], start='"version": ')
    return found


def _first_line(command: list[str], *, start: str = "") -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except OSError:
        return "not installed"
    for line in (done.stdout + done.stderr).splitlines():
        if line.strip().startswith(start):
            return line.strip().removeprefix(start).strip('",').split(" Copyright")[0].strip()
    return "not installed"
