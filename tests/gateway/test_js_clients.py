"""Runs the tests of npm's clients of the gateway, which lie in `tests/js/gateway`."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.gateway.gateway_server import TOKEN, Place
from tests.js.modules import HAS_NODE, HERE, install


@pytest.mark.js
@pytest.mark.timeout(300)  # the first run installs the packages
@pytest.mark.skipif(not HAS_NODE, reason="needs Node.js and npm")
def test_npms_clients_are_served(place: Place) -> None:
    install()

    done = subprocess.run(
        ["node", "--test", "gateway/clients.mjs"],
        cwd=HERE,
        env={
            **os.environ,
            "OPENWORKS_TEST_GATEWAY": place.url(),
            "OPENWORKS_TEST_SECRET": TOKEN,
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert all(record.account_id == place.account for record in place.records(10))
