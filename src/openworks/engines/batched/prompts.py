"""From a request to the tokens that are continued, and to what the continuation must be like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from openworks.core.errors import InvalidRequestError, UnsupportedParameterError
from openworks.core.ids import NewId
from openworks.core.json import JsonObject
from openworks.engines.batched.detokenizer import Detokenizer
from openworks.engines.batched.formats.base import AnswerParser, Format
from openworks.engines.batched.formats.tools import Tool, read_tools
from openworks.engines.batched.grammar import GrammarCompiler, Matcher
from openworks.engines.batched.grammar_schema import check_schema, malformed
from openworks.engines.batched.randomness import NewSeed
from openworks.engines.batched.sampling import SamplingRules, TokenCounts, resolved
from openworks.engines.batched.template import ChatTemplate
from openworks.engines.batched.tokenizer import Tokenizer
from openworks.engines.batched.writer import AnswerPlan, AnswerWriter, Constraints
from openworks.engines.text_requests import (
    callable_tools,
    must_call_tool,
    reasoning_args,
    too_long,
)
from openworks.ports.text import ChatRequest, CompletionRequest, Sampling

_SCHEMA_PARAM = "response_format.json_schema.schema"
_FILL_IN_TOKENS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<PRE>", "<SUF>", "<MID>"),
)
"""How families spell what marks the text before a gap, after it, and the gap itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What is continued, and how each answer begins."""

    token_ids: Sequence[int]
    param: str
    """The request's field that it came from."""
    make_parser: Callable[[], AnswerParser] | None = None
    make_constraints: Callable[[], Constraints] = field(default=Constraints)
    keep_special: frozenset[str] = frozenset()
    must_call: bool = False
    continues_text: bool = False
    """Whether the answer goes on in the middle of a text, where a blank counts."""


class Prompter:
    """The text side of a model: its template, tokenizer, formats and defaults."""

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        format_: Format,
        grammars: GrammarCompiler,
        defaults: SamplingRules,
        context_tokens: int,
        new_id: NewId,
        new_seed: NewSeed,
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._format = format_
        self._grammars = grammars
        self._defaults = defaults
        self._context_tokens = context_tokens
        self._new_id = new_id
        self._new_seed = new_seed

    def chat(self, request: ChatRequest) -> Prompt:
        """Return the prompt of a conversation.

        Raises:
            ContextLengthExceededError: It leaves no room for an answer.
            UnsupportedParameterError: The model cannot honour a parameter.
            InvalidRequestError: The template or a schema refuses it.
        """
        text, tools = self._chat_text(request)
        offered = _checked(read_tools(tools))
        return Prompt(
            token_ids=self._fitting(self._tokenizer.encode(text, add_bos=True), "messages"),
            param="messages",
            make_parser=lambda: self._format.parser(
                offered, parallel=request.parallel_tool_calls, prompt=text
            ),
            make_constraints=self._constraints(request, offered, text),
            keep_special=self._format.special_tokens,
            must_call=must_call_tool(request),
        )

    def chat_ids(self, request: ChatRequest) -> list[int]:
        """Return a conversation as token ids, however many.

        Raises:
            UnsupportedParameterError: The model cannot honour a parameter.
            InvalidRequestError: The template refuses it.
        """
        text, _ = self._chat_text(request)
        return self._tokenizer.encode(text, add_bos=True)

    def complete(self, request: CompletionRequest) -> Prompt:
        """Return the prompt of a plain text.

        Raises:
            ContextLengthExceededError: It leaves no room for an answer.
            UnsupportedParameterError: The model does not fill in text, and there is a suffix.
            InvalidRequestError: A token id is none of the model's.
        """
        ids = self.text_ids(request)
        if request.suffix:
            before, after, middle = self._fill_in_ids()
            suffix = self._tokenizer.encode(request.suffix, add_bos=False)
            ids = [before, *ids, after, *suffix, middle]
        return Prompt(
            token_ids=self._fitting(ids, "prompt"), param="prompt", continues_text=bool(ids)
        )

    def text_ids(self, request: CompletionRequest) -> list[int]:
        """Return a completion's prompt as token ids.

        Raises:
            InvalidRequestError: A token id is none of the model's.
        """
        if isinstance(request.prompt, str):
            return self._tokenizer.encode(request.prompt, add_bos=True)
        for token in request.prompt:
            if not 0 <= token < self._tokenizer.num_tokens:
                raise InvalidRequestError(
                    "Invalid 'prompt': it holds token ids that this model does not have: "
                    f"{token}, of 0..{self._tokenizer.num_tokens - 1}.",
                    param="prompt",
                )
        return list(request.prompt)

    def text_of(self, request: CompletionRequest) -> str:
        """Return a completion's prompt as text, for its echo."""
        if isinstance(request.prompt, str):
            return request.prompt
        detokenizer = Detokenizer(self._tokenizer)
        return "".join(map(detokenizer.feed, self.text_ids(request))) + detokenizer.finish()

    def writers(self, prompt: Prompt, sampling: Sampling, n: int) -> list[AnswerWriter]:
        """Return a writer for each of a request's answers.

        Raises:
            InvalidRequestError: A schema cannot be enforced, or `logit_bias` names no token.
        """
        rules = resolved(sampling, self._defaults, num_tokens=self._tokenizer.num_tokens)
        seed = self._new_seed() if sampling.seed is None else sampling.seed
        room = self._context_tokens - len(prompt.token_ids)
        wanted = room if sampling.max_tokens is None else sampling.max_tokens
        return [
            AnswerWriter(
                AnswerPlan(
                    index=index,
                    rules=rules,
                    seed=seed,
                    max_tokens=min(room, wanted),
                    stops=sampling.stop,
                    must_call=prompt.must_call,
                ),
                tokenizer=self._tokenizer,
                detokenizer=Detokenizer(
                    self._tokenizer,
                    keep_special=prompt.keep_special,
                    continues=prompt.continues_text,
                ),
                parser=None if prompt.make_parser is None else prompt.make_parser(),
                constraints=prompt.make_constraints(),
                counts=self._counts(rules, prompt),
                new_id=self._new_id,
            )
            for index in range(n)
        ]

    def _chat_text(self, request: ChatRequest) -> tuple[str, Sequence[JsonObject]]:
        """Return a conversation as its template writes it, and the tools that are told of."""
        template = self._chat_template()
        tools = callable_tools(request)
        traits = template.traits
        effort = reasoning_args(
            request, knows_effort=traits.reasoning_effort, knows_switch=traits.thinking_switch
        )
        text = template.render(
            request.messages, tools=tools, template_args={**request.template_args, **effort}
        )
        if tools and not self._format.knows_calls:
            raise UnsupportedParameterError(
                "This model's way of calling tools is not known here.", param="tools"
            )
        return text, tools

    def _chat_template(self) -> ChatTemplate:
        if self._template is None:
            raise UnsupportedParameterError(
                "This model has no chat template; it only continues plain text.",
                param="messages",
            )
        return self._template

    def _constraints(
        self, request: ChatRequest, tools: Sequence[Tool], prompt: str
    ) -> Callable[[], Constraints]:
        """Compile what answers must fit, once for all of them."""
        added = self._tokenizer.added_ids
        wanted, parallel = request.response_format, request.parallel_tool_calls
        if must_call_tool(request):
            grammar = self._format.call_grammar(
                tools, parallel=parallel, token_ids=added, prompt=prompt
            )
            return _from_the_start(self._grammars.lark(grammar, param="tools"))
        if wanted is not None:
            schema = None if wanted.schema is None else check_schema(wanted.schema, _SCHEMA_PARAM)
            grammar = self._format.json_grammar(
                schema, tools=tools, parallel=parallel, token_ids=added, prompt=prompt
            )
            return _from_the_start(self._grammars.lark(grammar, param=_SCHEMA_PARAM))
        after = {
            trigger: self._grammars.lark(
                self._format.call_grammar(
                    tools, parallel=parallel, token_ids=added, after_trigger=trigger
                ),
                param="tools",
            )
            for trigger in (self._format.call_triggers if tools else ())
        }
        return lambda: Constraints(after=after)

    def _counts(self, rules: SamplingRules, prompt: Prompt) -> TokenCounts | None:
        if not rules.counts_tokens:
            return None
        return TokenCounts(prompt.token_ids if rules.counts_prompt else ())

    def _fill_in_ids(self) -> tuple[int, int, int]:
        added = self._tokenizer.added_ids
        for before, after, middle in _FILL_IN_TOKENS:
            if {before, after, middle} <= added.keys():
                return added[before], added[after], added[middle]
        raise UnsupportedParameterError(
            "This model was not trained to fill in text: it has no tokens for 'suffix'.",
            param="suffix",
        )

    def _fitting(self, ids: list[int], param: str) -> list[int]:
        if not ids:
            raise InvalidRequestError(f"Invalid '{param}': it has no tokens.", param=param)
        if len(ids) >= self._context_tokens:
            raise too_long(param, len(ids), self._context_tokens)
        return ids


def _checked(tools: Sequence[Tool]) -> list[Tool]:
    """Return tools with schemas that a grammar can be made of.

    Raises:
        InvalidRequestError: A schema cannot be enforced, or is not that of an object.
    """
    checked = []
    for index, tool in enumerate(tools):
        path = f"tools[{index}].function.parameters"
        if tool.parameters.get("type", "object") != "object":
            raise malformed(path, f"arguments are an object, not {tool.parameters['type']!r}")
        schema = check_schema(tool.parameters, path, strict=tool.strict)
        checked.append(replace(tool, parameters=schema))
    return checked


def _from_the_start(matcher: Matcher) -> Callable[[], Constraints]:
    return lambda: Constraints(matcher=matcher.copy())
