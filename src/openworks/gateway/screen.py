"""What a gateway's DLP policies and guardrails make of one call: pass, redact, flag or refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Final

import orjson

from openworks.core.errors import BlockedError, ModelUnavailableError, ProviderError
from openworks.gateway.guard.bodies import guard_body, texts_of
from openworks.gateway.guard.events import texts_of_event
from openworks.gateway.guard.guardrails import GuardVerdict, check_guardrails, needs_whole
from openworks.gateway.guard.policies import CompiledPolicies, SidePolicies, compile_policies
from openworks.gateway.guard.stream import StreamGuard
from openworks.gateway.guard.verdicts import Verdict, dlp_header
from openworks.gateway.steps import Step
from openworks.ports.gateways import Gateway, Guardrails, Side
from openworks.ports.moderation import SCANNER_DOWN, Moderator
from openworks.ports.upstream import Headers

_MAX_JUDGED_CHARS: Final = 200_000
_TEXTS: Final = (b"application/json", b"text/")
_MAX_INLINE_BYTES: Final = 65_536


class Screened:
    """What was found in one call so far."""

    __slots__ = ("_categories", "_verdicts", "logged")

    def __init__(self) -> None:
        self._verdicts: list[Verdict] = []
        self._categories: list[str] = []
        self.logged = b""
        """The request as it may be kept: without what a policy redacts or blocks."""

    def add(self, verdict: Verdict | None) -> None:
        """Take note of what DLP found."""
        if verdict is not None and verdict.action is not None:
            self._verdicts.append(verdict)

    def judge(self, verdict: GuardVerdict) -> None:
        """Take note of what the guardrails found."""
        self._categories.extend(verdict.categories)

    @property
    def findings(self) -> tuple[str, ...]:
        """Entry ids and categories, never the text."""
        entries = [label for verdict in self._verdicts for label in verdict.labels]
        return tuple(dict.fromkeys([*entries, *self._categories]))

    @property
    def headers(self) -> Headers:
        """`cf-aig-dlp`, where there were findings."""
        value = dlp_header(*self._verdicts)
        return [] if value is None else [(b"cf-aig-dlp", value.encode())]


class Screen:
    """The policies of one gateway, compiled."""

    def __init__(
        self,
        policies: CompiledPolicies | None,
        guardrails: Guardrails,
        moderator: Moderator | None,
        *,
        must_read_answers: bool,
    ) -> None:
        self.must_read_answers = must_read_answers
        """Whether an answer that nobody here can read may not pass."""
        self._policies = policies
        self._guardrails = guardrails
        self._moderator = moderator
        self.holds_streams = needs_whole(guardrails)
        """Whether a stream may only be shown once it is complete."""
        self.judges_streams = bool(guardrails.response)

    async def prompt(self, step: Step, screened: Screened) -> None:
        """Screen a request before it is sent; what must be redacted is redacted in `step`.

        Raises:
            BlockedError: It may not be sent.
            ModelUnavailableError: No scanner can say, and a rule blocks.
        """
        verdict: Verdict | None = None
        if self._policies is not None:
            step.body, verdict = await _guarded(self._policies.request, step.body)
            screened.add(verdict)
        screened.logged = step.body
        if verdict is not None and verdict.blocked:
            raise _refused(verdict)
        if self._guardrails.prompt:
            await self._judge("REQUEST", texts_of(step.body), screened)

    def check_readable(self, headers: Headers, *, is_read: bool) -> None:
        """Refuse an answer that must be screened and cannot be.

        Args:
            headers: Of the answer.
            is_read: Whether it is here whole, or comes as events that are read as they pass.

        Raises:
            ProviderError: It is compressed, though nobody asked for that, or too long.
        """
        if not self.must_read_answers:
            return
        for name, value in headers:
            if name == b"content-encoding" and value not in (b"", b"identity"):
                raise ProviderError(
                    "The provider's answer is compressed, and this gateway must read it.",
                    code="answer_unreadable",
                )
            if name == b"content-type" and not is_read and value.startswith(_TEXTS):
                raise ProviderError(
                    "The provider's answer is too long for this gateway, which must read it.",
                    code="answer_too_long",
                )

    async def answer(self, body: bytes, screened: Screened) -> bytes:
        """Screen a whole answer; return it as it may go on.

        Raises:
            BlockedError: It may not.
            ModelUnavailableError: No scanner can say, and a rule blocks.
        """
        if self._policies is not None:
            body, verdict = await _guarded(self._policies.response, body)
            screened.add(verdict)
            if verdict is not None and verdict.blocked:
                raise _refused(verdict)
        if self._guardrails.response:
            await self._judge("RESPONSE", texts_of(body), screened)
        return body

    async def redacted(self, body: bytes) -> bytes:
        """Return a provider's error as it may be kept."""
        if self._policies is None:
            return body
        return (await _guarded(self._policies.response, body))[0]

    async def judge_stream(self, body: bytes, screened: Screened) -> None:
        """Judge a stream that is complete, as `answer` does."""
        await self._judge("RESPONSE", _texts_of_events(body), screened)

    def filters(self, screened: Screened) -> list[GuardFilter]:
        """Return what a stream must pass through."""
        if self._policies is None or self._policies.response is None:
            return []
        return [GuardFilter(StreamGuard(self._policies.response), screened)]

    async def _judge(self, side: Side, texts: list[str], screened: Screened) -> None:
        text = "\n".join(texts)
        # A part of a text says nothing of the rest: spaces in front of it would hide anything.
        if self._moderator is None or len(text) > _MAX_JUDGED_CHARS:
            verdict = GuardVerdict(code=SCANNER_DOWN if self._blocks(side) else None)
        else:
            verdict = await check_guardrails(self._guardrails, side, text, self._moderator)
        screened.judge(verdict)
        if verdict.code == SCANNER_DOWN:
            raise ModelUnavailableError(
                "No scanner can judge this call now, and a guardrail of this gateway blocks.",
                code="scanner_unavailable",
                retry_after_s=1.0,
            )
        if verdict.blocked:
            what = "Prompt" if side == "REQUEST" else "Response"
            raise BlockedError(
                f"{what} blocked due to security configurations ({', '.join(verdict.categories)}).",
                code="guardrails_prompt" if side == "REQUEST" else "guardrails_response",
            )

    def _blocks(self, side: Side) -> bool:
        rules = self._guardrails.prompt if side == "REQUEST" else self._guardrails.response
        return "BLOCK" in rules.values()


class GuardFilter:
    """A stream guard as one of a relay's filters."""

    __slots__ = ("_guard", "_screened")

    def __init__(self, guard: StreamGuard, screened: Screened) -> None:
        self._guard = guard
        self._screened = screened

    def feed(self, chunk: bytes) -> bytes:
        passed = self._guard.feed(chunk)
        if self._guard.blocked:
            verdict = self._guard.verdict()
            self._screened.add(verdict)
            raise _refused(verdict)
        return passed

    def end(self) -> bytes:
        passed = self._guard.end()
        verdict = self._guard.verdict()
        self._screened.add(verdict)
        if self._guard.blocked:
            raise _refused(verdict)
        return passed


def make_screen(gateway: Gateway, moderator: Moderator | None) -> Screen | None:
    """Return a gateway's screen; None when it looks at nothing.

    Raises:
        InvalidRequestError: A policy cannot be compiled.
    """
    rules = gateway.guardrails
    if not gateway.dlp and not rules.prompt and not rules.response:
        return None
    policies = compile_policies(gateway) if gateway.dlp else None
    changes = any(each.action != "FLAG" and "RESPONSE" in each.checks for each in gateway.dlp)
    must_read = changes or needs_whole(rules)
    return Screen(policies, rules, moderator, must_read_answers=must_read)


def _refused(verdict: Verdict) -> BlockedError:
    is_request = verdict.side == "REQUEST"
    what = "Request" if is_request else "Response"
    return BlockedError(
        f"{what} blocked by a data loss policy ({', '.join(verdict.labels)}).",
        code="dlp_request" if is_request else "dlp_response",
    )


async def _guarded(policies: SidePolicies | None, body: bytes) -> tuple[bytes, Verdict | None]:
    if len(body) <= _MAX_INLINE_BYTES:
        return guard_body(policies, body)
    # A large body may take milliseconds, which the other calls need not wait for.
    return await asyncio.to_thread(guard_body, policies, body)


def _texts_of_events(body: bytes) -> list[str]:
    """Put the texts of a stream's events together, each channel for itself."""
    channels: dict[Any, list[str]] = {}
    for event in _events(body):
        for piece in texts_of_event(event).pieces:
            channels.setdefault((piece.group, piece.name), []).append(piece.parent[piece.key])
    return ["".join(parts) for parts in channels.values()]


def _events(body: bytes) -> Iterator[Any]:
    for line in body.splitlines():
        if line.startswith(b"data:"):
            try:
                yield orjson.loads(line[5:])
            except orjson.JSONDecodeError:
                continue
