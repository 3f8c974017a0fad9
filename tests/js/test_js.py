"""Runs the tests of the npm SDK: those in `test` on noise, in `embedded` on models with sense."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.api.test_meaning import pytestmark as needs_models
from tests.api.weights import CALL_BEGIN
from tests.js.modules import HAS_NODE, HERE, install


@pytest.mark.js
@pytest.mark.timeout(300)  # the first run installs the SDK
@pytest.mark.skipif(not HAS_NODE, reason="needs Node.js and npm")
@pytest.mark.parametrize("folder", ["test", pytest.param("embedded", marks=needs_models)])
def test_the_npm_sdk_is_served(server_url: str, folder: str) -> None:
    install()

    done = subprocess.run(
        ["node", "--test", "--test-timeout=60000", *map(str, HERE.glob(f"{folder}/*.test.mjs"))],
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
