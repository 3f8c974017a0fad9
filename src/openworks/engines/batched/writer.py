"""One answer while it is written: chosen tokens go in, chunks for the caller come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from openworks.core.ids import NewId
from openworks.engines.batched.detokenizer import Detokenizer
from openworks.engines.batched.formats.base import AnswerParser
from openworks.engines.batched.formats.deltas import (
    CallArguments,
    CallBegin,
    Content,
    Delta,
    Reasoning,
)
from openworks.engines.batched.grammar import Matcher
from openworks.engines.batched.logprobs import Part, PendingLogprobs
from openworks.engines.batched.sampling import Choice, Draw, SamplingRules, TokenCounts
from openworks.engines.batched.tokenizer import Tokenizer
from openworks.engines.stops import StopCutter
from openworks.ports.text import FinishReason, TextChunk, TokenLogprob, ToolCallDelta

_TAIL_CHARS = 64
"""No trigger of a format is longer."""


@dataclass(slots=True, kw_only=True)
class Constraints:
    """What an answer must fit, from its beginning or from a certain text on."""

    matcher: Matcher | None = None
    after: Mapping[str, Matcher] = field(default_factory=dict)
    """Text of the model's own → the grammar of what follows it, to be copied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerPlan:
    """How one of a request's answers is written."""

    index: int
    rules: SamplingRules
    seed: int
    max_tokens: int
    stops: Sequence[str]
    must_call: bool
    """Whether it has to be a tool call, of which content beside it is no part."""


class AnswerWriter:
    """Takes the tokens of one answer, one after another, until it `finish_reason` is known."""

    def __init__(
        self,
        plan: AnswerPlan,
        *,
        tokenizer: Tokenizer,
        detokenizer: Detokenizer,
        parser: AnswerParser | None,
        constraints: Constraints,
        counts: TokenCounts | None,
        new_id: NewId,
    ) -> None:
        """Begin an answer.

        Args:
            plan: What is wanted.
            tokenizer: Tells ends and spellings.
            detokenizer: Fresh, for this answer alone.
            parser: Fresh, for this answer alone; None for text that is nothing but content.
            constraints: For this answer alone.
            counts: The tokens that penalties look at; None when there are none.
            new_id: Makes the ids of tool calls.
        """
        self.finish_reason: FinishReason | None = None
        self.num_tokens = 0
        self.num_reasoning_tokens = 0
        self._plan = plan
        self._tokenizer = tokenizer
        self._detokenizer = detokenizer
        self._parser = parser
        self._constraints = constraints
        self._counts = counts
        self._new_id = new_id
        self._cutter = StopCutter(plan.stops)
        self._tail = ""
        self._given_tail = ""
        self._has_called = False
        self._num_held = 0  # tokens from which nothing has come yet
        self._logprobs = PendingLogprobs()

    @property
    def max_tokens(self) -> int:
        """How many tokens the answer may have."""
        return self._plan.max_tokens

    def draw(self) -> Draw:
        """Return what the choice of the next token depends on."""
        matcher = self._constraints.matcher
        return Draw(
            rules=self._plan.rules,
            seed=self._plan.seed,
            answer=self._plan.index,
            position=self.num_tokens,
            seen=self._counts,
            allowed=None if matcher is None else matcher.mask(),
        )

    def take(self, choice: Choice) -> TextChunk | None:
        """Take the next token; return what it adds to the answer, if that is anything yet.

        Raises:
            InvalidRequestError: The grammar came to a dead end.
        """
        self.num_tokens += 1
        self._num_held += 1
        is_end = choice.token in self._tokenizer.eos_ids
        if self._counts is not None:
            self._counts.add(choice.token)
        text = "" if is_end else self._detokenizer.feed(choice.token)
        if self._wants_logprobs and not is_end:
            self._logprobs.add(self._logprob(choice), text)
        is_complete = is_end or self._is_matched(choice.token)
        if is_complete:
            self.finish_reason = "stop"
        elif self.num_tokens >= self._plan.max_tokens:
            self.finish_reason = "length"
        if self.finish_reason is not None:
            rest = self._detokenizer.finish()
            self._logprobs.add_text(rest)
            text += rest
        deltas = self._parsed(text)
        self._watch_for_triggers(text, deltas)
        return self._chunk(deltas)

    @property
    def _wants_logprobs(self) -> bool:
        return self._plan.rules.top_logprobs is not None

    def _is_matched(self, token: int) -> bool:
        """Tell the grammar of a token; return whether it allows no more of them."""
        matcher = self._constraints.matcher
        if matcher is None:
            return False
        matcher.accept(token)
        return matcher.is_stopped

    def _watch_for_triggers(self, text: str, deltas: Sequence[Delta]) -> None:
        after = self._constraints.after
        if not after or not text or self._constraints.matcher is not None:
            return
        given = (delta.text for delta in deltas if isinstance(delta, Content | Reasoning))
        self._given_tail = "".join([self._given_tail, *given])[-_TAIL_CHARS:]
        self._tail = (self._tail + text)[-_TAIL_CHARS:]
        for trigger, grammar in after.items():
            _, found, rest = self._tail.rpartition(trigger)
            if not found:
                continue
            self._tail = rest
            if trigger in self._given_tail:  # in reasoning, or quoted: the parser knows
                self._given_tail = self._given_tail.rpartition(trigger)[2]
                continue
            matcher = grammar.copy()
            # A token may hold more than the trigger; where that fits, the grammar goes on from it.
            if matcher.accept_text(rest):
                self._constraints.matcher = matcher
            return

    def _parsed(self, text: str) -> Sequence[Delta]:
        if self._parser is None:
            return [Content(text)] if text else []
        deltas = self._parser.feed(text) if text else []
        if self._parser.done:
            self.finish_reason = "stop"
        return [*deltas, *self._parser.finish()] if self.finish_reason else deltas

    def _chunk(self, deltas: Sequence[Delta]) -> TextChunk | None:
        content = "".join(delta.text for delta in deltas if isinstance(delta, Content))
        reasoning = "".join(delta.text for delta in deltas if isinstance(delta, Reasoning))
        calls = tuple(call for delta in deltas if (call := self._call(delta)) is not None)
        self._has_called = self._has_called or bool(calls)
        if reasoning and not content:
            self.num_reasoning_tokens += self._num_held
        if reasoning or content or calls:
            self._num_held = 0
        if self._plan.must_call:
            content = ""
        content, logprobs = self._cut(self._parts(content, has_other=bool(calls or reasoning)))
        if self.finish_reason == "stop" and self._has_called:
            self.finish_reason = "tool_calls"
        if not (content or reasoning or calls or logprobs or self.finish_reason):
            return None
        return TextChunk(
            index=self._plan.index,
            content=content,
            reasoning=reasoning,
            tool_calls=calls,
            logprobs=logprobs,
            finish_reason=self.finish_reason,
        )

    def _call(self, delta: Delta) -> ToolCallDelta | None:
        match delta:
            case CallBegin(index, name):
                return ToolCallDelta(index=index, id=self._new_id("call_"), name=name)
            case CallArguments(index, text):
                return ToolCallDelta(index=index, arguments=text)
            case _:
                return None

    def _parts(self, content: str, *, has_other: bool) -> Sequence[Part]:
        """Cut content where its tokens begin, if log probabilities are wanted."""
        is_last = self.finish_reason is not None
        if not self._wants_logprobs:
            return [(content, ())] if content or is_last else []
        parts = [*self._logprobs.take(content)] if content else []
        if has_other:
            self._logprobs.take_all()
        if is_last:
            left = self._logprobs.take_all()
            # Without a parser all that is said is content; otherwise it was markup.
            parts.append(("", left if self._parser is None else ()))
        return parts

    def _cut(self, parts: Sequence[Part]) -> tuple[str, tuple[TokenLogprob, ...]]:
        """End the content at a stop text; what may become one is held back."""
        said: list[str] = []
        ready: list[TokenLogprob] = []
        is_last = self.finish_reason is not None
        for number, (text, tokens) in enumerate(parts, 1):
            more = self._cutter.feed(text, tokens, is_last=is_last and number == len(parts))
            said.append(more[0])
            ready += more[1]
            if self._cutter.found:
                self.finish_reason = "stop"
                break
        return "".join(said), tuple(ready)

    def _logprob(self, choice: Choice) -> TokenLogprob:
        assert choice.logprob is not None
        top = tuple(self._spelled(token, logprob) for token, logprob in choice.top)
        return self._spelled(choice.token, choice.logprob, top)

    def _spelled(
        self, token: int, logprob: float, top: tuple[TokenLogprob, ...] = ()
    ) -> TokenLogprob:
        data = self._tokenizer.token_bytes(token)
        return TokenLogprob(
            token=data.decode(errors="replace"), bytes=tuple(data), logprob=logprob, top=top
        )
