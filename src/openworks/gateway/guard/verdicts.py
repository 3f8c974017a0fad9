"""What DLP says of one side of a call, and how that is told in `cf-aig-dlp`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from openworks.gateway.guard.policies import CompiledPolicies, SidePolicies, severest
from openworks.gateway.guard.rules import Finding
from openworks.gateway.guard.scanner import Match
from openworks.ports.gateways import DlpAction, Side

REQUEST_BLOCKED: Final = 2029
RESPONSE_BLOCKED: Final = 2030
MAX_FINDINGS = 256
"""Findings kept of one call with their places; the entries found are complete in any case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found on one side, and what follows from it."""

    side: Side
    action: DlpAction | None
    """The most severe that follows; None when nothing was found."""
    findings: tuple[Finding, ...] = ()
    entries: Mapping[str, frozenset[str]]
    """Profile id → the ids of its entries that were found."""
    policy_ids: Mapping[str, tuple[str, ...]]
    """Profile id → the policies that asked for it."""
    texts: tuple[str, ...] = ()
    """The texts as they may go on, when `scan_request` was asked; redacted where REDACT says so."""

    @property
    def blocked(self) -> bool:
        """Whether the call must be refused."""
        return self.action == "BLOCK"

    @property
    def code(self) -> int | None:
        """The error code of a refusal."""
        if not self.blocked:
            return None
        return REQUEST_BLOCKED if self.side == "REQUEST" else RESPONSE_BLOCKED

    @property
    def labels(self) -> tuple[str, ...]:
        """The entry ids found, sorted: what the call's record keeps."""
        return tuple(sorted({entry for ids in self.entries.values() for entry in ids}))


class Tally:
    """Collects what is found on one side, however often it is asked."""

    __slots__ = ("_entries", "blocks", "findings", "policies")

    def __init__(self, policies: SidePolicies) -> None:
        """Begin with nothing found."""
        self.policies = policies
        self.blocks = False
        """Whether one of the findings blocks."""
        self.findings: list[Finding] = []
        self._entries: dict[str, set[str]] = {}

    def add(self, matches: Iterable[Match], offset: int = 0) -> None:
        """Count the matches in; `offset` is where their text begins."""
        for match in matches:
            rule = match.rule
            self._entries.setdefault(rule.profile_id, set()).add(rule.entry_id)
            self.blocks = self.blocks or self.policies.actions[rule.profile_id] == "BLOCK"
            if len(self.findings) < MAX_FINDINGS:
                start, end = match.start + offset, match.end + offset
                self.findings.append(Finding(rule.entry_id, rule.profile_id, start, end))

    def verdict(self, texts: tuple[str, ...] = ()) -> Verdict:
        """Say what follows from all that was found."""
        actions = self.policies.actions
        return Verdict(
            side=self.policies.side,
            action=severest(actions[profile_id] for profile_id in self._entries),
            findings=tuple(self.findings),
            entries={key: frozenset(ids) for key, ids in self._entries.items()},
            policy_ids={
                key: tuple(p.id for p in self.policies.policies if key in p.profiles)
                for key in self._entries
            },
            texts=texts,
        )


def scan_request(compiled: CompiledPolicies, texts: Sequence[str]) -> Verdict | None:
    """Scan the texts of a request; None when no policy looks at requests."""
    return None if compiled.request is None else scan_texts(compiled.request, texts)


def scan_texts(policies: SidePolicies, texts: Sequence[str]) -> Verdict:
    """Scan texts, each for itself; the verdict holds them redacted."""
    tally = Tally(policies)
    passed = []
    for text in texts:
        raw = encode(text)
        redacted = redact(policies, raw, tally)
        passed.append(text if redacted is raw else decode(redacted))
    return tally.verdict(tuple(passed))


_ESCAPE = re.compile(rb'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')


def without_escapes(text: bytes) -> bytes:
    """Blank the escapes of JSON that is written inside a string, such as tool arguments.

    As long as before, so that places stay what they are. Without this, the `n` of `\\n` would be
    part of the word after it.
    """
    return _ESCAPE.sub(_blank, text) if b"\\" in text else text


def _blank(match: re.Match[bytes]) -> bytes:
    return b" " * (match.end() - match.start())


def redact(policies: SidePolicies, text: bytes, tally: Tally, *, nested: bool = False) -> bytes:
    """Count what is in one text, and return it redacted; the same object when nothing changes.

    Args:
        policies: What to look for.
        text: In UTF-8.
        tally: Where to count.
        nested: Whether the text is itself JSON.
    """
    matches = policies.scanner.find(without_escapes(text) if nested else text)
    if not matches:
        return text
    tally.add(matches)
    pieces: list[bytes] = []
    done = 0
    for start, end, marker in redactions(policies, matches):
        pieces += (text[done:start], marker)
        done = end
    return b"".join((*pieces, text[done:])) if pieces else text


def redactions(policies: SidePolicies, matches: Iterable[Match]) -> list[tuple[int, int, bytes]]:
    """Return what to replace by what, in order; overlapping matches become one, under the first."""
    edits: list[tuple[int, int, bytes]] = []
    for match in matches:
        if policies.actions[match.rule.profile_id] == "FLAG":
            continue
        if edits and match.start < edits[-1][1]:
            start, end, marker = edits[-1]
            edits[-1] = (start, max(end, match.end), marker)
        else:
            edits.append((match.start, match.end, marker_of(match)))
    return edits


def marker_of(match: Match) -> bytes:
    """Return what stands where the match stood."""
    return f"[REDACTED:{match.rule.entry_id}]".encode()


def encode(text: str) -> bytes:
    """Encode as UTF-8; halves of surrogate pairs are joined, or kept if they are alone."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        return joined.encode("utf-8", "surrogatepass")


def decode(text: bytes) -> str:
    """Turn what `encode` made back into a text."""
    return text.decode("utf-8", "surrogatepass")


def dlp_header(*verdicts: Verdict | None) -> str | None:
    """Return the value of `cf-aig-dlp`, or None when nothing was found on either side."""
    found = [verdict for verdict in verdicts if verdict is not None and verdict.action is not None]
    if not found:
        return None
    findings = [
        {
            "profile": {"context": {}, "entry_ids": sorted(ids), "profile_id": profile_id},
            "policy_ids": list(verdict.policy_ids[profile_id]),
            "check": verdict.side,
        }
        for verdict in found
        for profile_id, ids in verdict.entries.items()
    ]
    action = severest(verdict.action for verdict in found if verdict.action is not None)
    return orjson.dumps({"findings": findings, "action": action}).decode("ascii")
