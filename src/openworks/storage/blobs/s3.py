"""How a bucket of S3 is reached, as settings say it and the log writer's process is told."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Config:
    """What is None is taken from where AWS's own tools find it: environment, instance role."""

    endpoint: str | None = None
    """A server that speaks S3, such as `https://storage.example.com:9000`; None for AWS's own."""
    region: str | None = None
    """The bucket's region; servers of your own mostly take any."""
    access_key_id: str | None = None
    """Names the key; goes with `secret_access_key`."""
    secret_access_key: str | None = field(default=None, repr=False)
    """Signs requests; goes with `access_key_id`."""
