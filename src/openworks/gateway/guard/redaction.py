"""Takes secrets out of what we write to our own logs."""

from __future__ import annotations

from functools import cache

from openworks.gateway.guard import credentials
from openworks.gateway.guard.policies import SidePolicies
from openworks.gateway.guard.scanner import Scanner
from openworks.gateway.guard.verdicts import Tally, decode, encode, redact
from openworks.ports.gateways import DlpPolicy


def redact_text(text: str) -> str:
    """Replace every credential in a text by its marker, such as `[REDACTED:github-token]`."""
    raw = encode(text)
    redacted = redact_bytes(raw)
    return text if redacted is raw else decode(redacted)


def redact_bytes(text: bytes) -> bytes:
    """Do the same for UTF-8, a JSON body for example; the same object when nothing changes."""
    policies = _policies()
    return redact(policies, text, Tally(policies))


@cache
def _policies() -> SidePolicies:
    # Compiled on first use: importing this does no work.
    profile = credentials.PROFILE_ID
    policy = DlpPolicy(id="logs", action="REDACT", profiles=(profile,))
    scanner = Scanner([credentials.RULES])
    return SidePolicies("REQUEST", scanner, {profile: "REDACT"}, (policy,), True)
