"""Runs the tests of the npm SDK, which lie in `test/`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from shutil import which

import pytest

from tests.api.weights import CALL_BEGIN

HERE = Path(__file__).parent


@pytest.mark.js
@pytest.mark.timeout(300)  # the first run installs the SDK
@pytest.mark.skipif(which("node") is None or which("npm") is None, reason="needs Node.js and npm")
def test_the_npm_sdk_is_served(server_url: str) -> None:
    if not (HERE / "node_modules").is_dir():
        subprocess.run(["npm", "install", "--no-audit", "--no-fund"], cwd=HERE, check=True)

    done = subprocess.run(
        ["node", "--test"],
        cwd=HERE,
        env={
            **os.environ,
            "OPENWORKS_TEST_URL": server_url,
            "OPENWORKS_TEST_CALL_TOKEN": str(CALL_BEGIN),
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
