"""Installs the npm packages that tests drive."""

from __future__ import annotations

import fcntl
import json
import subprocess
from pathlib import Path
from shutil import which

HERE = Path(__file__).parent
HAS_NODE = which("node") is not None and which("npm") is not None


def install() -> None:
    """Bring `node_modules` to what `package.json` names; does nothing when it is so."""
    with (HERE / "package.json").open() as package:
        fcntl.flock(package, fcntl.LOCK_EX)  # other test processes want the same
        wanted: dict[str, str] = json.load(package)["dependencies"]
        if any(_installed(name) != version for name, version in wanted.items()):
            command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
            subprocess.run(command, cwd=HERE, check=True)


def _installed(name: str) -> str | None:
    package = HERE / "node_modules" / name / "package.json"
    if not package.exists():
        return None
    version: str = json.loads(package.read_text())["version"]
    return version
