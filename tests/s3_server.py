"""A server that speaks S3 on a free port of loopback, and checks every signature."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from openworks.storage.blobs.s3 import S3Config

_START_S = 30.0
_REGION = "us-east-1"
_EVERYTHING_IN_S3 = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
}


class S3Server:
    """A running server with one bucket; it keeps everything in memory, until it is killed."""

    bucket = "openworks-tests"

    def __init__(self, folder: Path) -> None:
        """Start it, and wait until it takes only requests that `config` signs.

        Args:
            folder: Where it writes its log.
        """
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        self._log = folder / "s3.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)],
                stdout=log,
                stderr=log,
            )
        try:
            self._wait(port)
            self.config = self._set_up()
        except BaseException:
            self.kill()
            raise

    def url(self, prefix: str) -> str:
        """Return the address of a part of the bucket, as settings have it."""
        return f"s3://{self.bucket}/{prefix}"

    def settings(self, prefix: str) -> dict[str, Any]:
        """Return the settings, by dotted key, of a server that keeps its blobs there."""
        return {
            "blobs.url": self.url(prefix),
            "blobs.s3.endpoint": self.config.endpoint,
            "blobs.s3.region": self.config.region,
            "blobs.s3.access_key_id": self.config.access_key_id,
            "blobs.s3.secret_access_key": self.config.secret_access_key,
        }

    def kill(self) -> None:
        """End it as the kernel would."""
        self._process.kill()
        self._process.wait()

    def _wait(self, port: int) -> None:
        deadline_s = time.monotonic() + _START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
            except OSError:
                assert self._process.poll() is None, self._log.read_text()
                assert time.monotonic() < deadline_s, "The server does not answer."
                time.sleep(0.05)
            else:
                return

    def _set_up(self) -> S3Config:
        """Make the bucket and a key for it while nobody is asked for one."""
        import boto3  # not at the top, which every run of tests reads

        anybody = {
            "endpoint_url": self._url,
            "region_name": _REGION,
            "aws_access_key_id": "anybody",
            "aws_secret_access_key": "anything",
        }
        boto3.client("s3", **anybody).create_bucket(Bucket=self.bucket)
        users = boto3.client("iam", **anybody)
        users.create_user(UserName="tests")
        users.put_user_policy(
            UserName="tests", PolicyName="s3", PolicyDocument=json.dumps(_EVERYTHING_IN_S3)
        )
        key = users.create_access_key(UserName="tests")["AccessKey"]
        # From now on, no request passes without a signature.
        checks = Request(f"{self._url}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})
        urlopen(checks, timeout=_START_S).close()
        return S3Config(
            endpoint=self._url,
            region=_REGION,
            access_key_id=key["AccessKeyId"],
            secret_access_key=key["SecretAccessKey"],
        )
