"""Runs the tests of the npm SDK, which lie in `test/`."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.api.weights import CALL_BEGIN
from tests.js.modules import HAS_NODE, HERE, install


@pytest.mark.js
@pytest.mark.timeout(300)  # the first run installs the SDK
@pytest.mark.skipif(not HAS_NODE, reason="needs Node.js and npm")
def test_the_npm_sdk_is_served(server_url: str) -> None:
    install()

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
