"""Forms written by hand: for what no client would send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.api.raw import Reply, ask
from tests.server import ServerProcess

BOUNDARY = "frontier"
TYPE = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def form_bytes(
    fields: Mapping[str, str], data: bytes, filename: str = "a.bin", *, name: str = "file"
) -> bytes:
    """Return a form with a file."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
        for field, value in fields.items()
    ]
    head = f'form-data; name="{name}"; filename="{filename}"'
    parts.append(f"--{BOUNDARY}\r\nContent-Disposition: {head}\r\n\r\n")
    return "".join(parts).encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def bring(
    server: ServerProcess,
    data: bytes = b"hello",
    filename: str = "a.bin",
    *,
    path: str = "/v1/files",
    name: str = "file",
    **fields: Any,
) -> Reply:
    """Send a form with a file and these fields."""
    return ask(server, "POST", path, form_bytes(fields, data, filename, name=name), TYPE)
