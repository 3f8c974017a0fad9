"""Where finished calls go."""

from __future__ import annotations

from typing import Protocol

from openworks.ports.calls import CallBodies, CallRecord
from openworks.ports.gateways import LogPolicy


class Recorder(Protocol):
    """Takes the record of every call that ends."""

    def record(
        self,
        record: CallRecord,
        bodies: CallBodies | None = None,
        *,
        policy: LogPolicy | None = None,
    ) -> None:
        """Take a record at once, without waiting for a disk.

        Args:
            record: Of a call that ended, however it ended.
            bodies: What was said; None when it is not to be kept.
            policy: Of the gateway; None for the defaults. With `collect` off the call still counts
                in the sums (tokens, cost, budgets) and leaves no row of its own.
        """
        ...
