"""A gateway's DLP policies, compiled: what looks at which side, and what a finding leads to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from openworks.core.errors import InvalidRequestError
from openworks.gateway.guard import credentials, personal
from openworks.gateway.guard.prefixes import UnsupportedPatternError, parse, without_groups
from openworks.gateway.guard.rules import Check, Rule
from openworks.gateway.guard.scanner import Scanner, compile_pattern
from openworks.ports.gateways import DlpAction, DlpPolicy, DlpProfile, Gateway, Side

BUILT_IN: Mapping[str, tuple[Rule, ...]] = {
    credentials.PROFILE_ID: credentials.RULES,
    "financial": personal.FINANCIAL,
    "contact": personal.CONTACT,
    "national-ids": personal.NATIONAL_IDS,
}
"""Profile id → rules. The ids of profiles and entries are part of our API: they never change."""

MAX_PATTERN_CHARS = 512
MAX_WORD_CHARS = 128
MAX_ENTRIES = 100
MAX_WORDS = 1000
"""Of one profile; so that compiling stays a matter of milliseconds."""

_SEVERITY: Mapping[DlpAction, int] = {"FLAG": 1, "REDACT": 2, "BLOCK": 3}


@dataclass(frozen=True, slots=True)
class SidePolicies:
    """The policies of one side of a call; only those with at least one rule."""

    side: Side
    scanner: Scanner
    actions: Mapping[str, DlpAction]
    """Profile id → the most severe action of the policies that name it."""
    policies: tuple[DlpPolicy, ...]
    interferes: bool
    """Whether any policy redacts or blocks, so that streams must hold back what may match."""


@dataclass(frozen=True, slots=True)
class CompiledPolicies:
    """What a gateway looks for. None for a side on which no policy looks."""

    request: SidePolicies | None
    response: SidePolicies | None


def compile_policies(gateway: Gateway) -> CompiledPolicies:
    """Compile all policies of a gateway; milliseconds, so once per version of the gateway.

    Raises:
        InvalidRequestError: A policy names no known profile, or a custom profile has a pattern that
            cannot be searched in linear time. The control plane calls this before it saves.
    """
    profiles = dict(BUILT_IN)
    for profile in gateway.dlp_profiles:
        if profile.id in BUILT_IN:
            raise InvalidRequestError(f"The profile id '{profile.id}' is that of a built-in one.")
        profiles[profile.id] = rules_of(profile)
    return CompiledPolicies(
        _compile_side("REQUEST", gateway.dlp, profiles),
        _compile_side("RESPONSE", gateway.dlp, profiles),
    )


def rules_of(profile: DlpProfile) -> tuple[Rule, ...]:
    """Turn a custom profile into rules.

    Raises:
        InvalidRequestError: An entry is too long or too many, or its pattern is not supported.
    """
    words = sum(len(listed) for listed in profile.words.values())
    if len(profile.patterns) + len(profile.words) > MAX_ENTRIES or words > MAX_WORDS:
        raise InvalidRequestError(
            f"Profile '{profile.id}' has more than {MAX_ENTRIES} entries or {MAX_WORDS} words."
        )
    return (
        *(_pattern_rule(profile.id, *entry) for entry in profile.patterns.items()),
        *(_words_rule(profile.id, *entry) for entry in profile.words.items() if entry[1]),
    )


def severest(actions: Iterable[DlpAction]) -> DlpAction | None:
    """Return the action that goes furthest, None for none."""
    return max(actions, key=_SEVERITY.__getitem__, default=None)


def _compile_side(
    side: Side, policies: tuple[DlpPolicy, ...], profiles: Mapping[str, tuple[Rule, ...]]
) -> SidePolicies | None:
    here = tuple(policy for policy in policies if side in policy.checks and policy.profiles)
    actions: dict[str, DlpAction] = {}
    for policy in here:
        for profile_id in policy.profiles:
            if profile_id not in profiles:
                raise InvalidRequestError(
                    f"DLP policy '{policy.id}' names the profile '{profile_id}', which is neither "
                    f"built in nor one of the gateway."
                )
            known = actions.get(profile_id, policy.action)
            actions[profile_id] = max(known, policy.action, key=_SEVERITY.__getitem__)
    families = [profiles[profile_id] for profile_id in actions if profiles[profile_id]]
    if not families:
        return None
    try:
        scanner = Scanner(families)
    except UnsupportedPatternError as exc:
        raise InvalidRequestError(f"The DLP profiles are too large together: {exc}.") from exc
    return SidePolicies(
        side, scanner, actions, here, any(action != "FLAG" for action in actions.values())
    )


def _pattern_rule(profile_id: str, entry_id: str, pattern: str) -> Rule:
    where = f"Entry '{entry_id}' of profile '{profile_id}'"
    if len(pattern) > MAX_PATTERN_CHARS:
        raise InvalidRequestError(
            f"{where}: a pattern has at most {MAX_PATTERN_CHARS} characters, got {len(pattern)}."
        )
    try:
        compiled = compile_pattern(pattern)
        probes = (compiled.search(probe) for probe in (b"", b"a", b" ", b"a a"))
        matches_nothing = any(match is not None and not match.group() for match in probes)
        # Written anew without its groups: group 1 has a meaning in our own rules only.
        rule = Rule(
            profile_id=profile_id, entry_id=entry_id, pattern=without_groups(parse(pattern))
        )
        Scanner([(rule,)])
    except UnsupportedPatternError as exc:
        raise InvalidRequestError(f"{where}: '{pattern}' is not a usable pattern: {exc}.") from exc
    if matches_nothing:
        raise InvalidRequestError(f"{where}: '{pattern}' matches the empty text.")
    return rule


def _words_rule(profile_id: str, entry_id: str, words: tuple[str, ...]) -> Rule:
    for word in words:
        if not word.strip() or len(word) > MAX_WORD_CHARS:
            raise InvalidRequestError(
                f"Entry '{entry_id}' of profile '{profile_id}': a word has 1 to {MAX_WORD_CHARS} "
                f"characters, got {len(word)}."
            )
    # Longest first, for of alternatives that start alike the first one wins.
    ordered = sorted({word.strip() for word in words}, key=lambda word: (-len(word), word))
    pattern = "(?i)(?:" + "|".join(_literal(word) for word in ordered) + ")"
    return Rule(
        profile_id=profile_id,
        entry_id=entry_id,
        pattern=pattern,
        check=_check_whole_word(frozenset(word.lower() for word in ordered)),
    )


def _literal(word: str) -> str:
    return "".join(
        char if char.isalnum() or not char.isascii() else f"\\x{ord(char):02x}" for char in word
    )


def _check_whole_word(words: frozenset[str]) -> Check:
    """Refuse parts of words; `foo` is still found where `foo bar` would end inside a word.

    `\\b` will not do: in RE2 it knows the letters of ASCII only.
    """

    def check(text: bytes, start: int, end: int) -> int:
        before = text[max(0, start - 4) : start].decode("utf-8", "ignore")[-1:]
        if before.isalnum() or before == "_":
            return 0
        found = text[start:end].decode("utf-8", "ignore")
        after = text[end : end + 4].decode("utf-8", "ignore")[:1]
        for size in range(len(found), 0, -1):
            is_inside = after.isalnum() or after == "_"
            if not is_inside and found[:size].lower() in words:
                return start + len(found[:size].encode("utf-8"))
            after = found[size - 1]
        return 0

    return check
