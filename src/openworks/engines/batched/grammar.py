"""Grammars that an answer must follow, by llguidance: which tokens may come next.

Grammars are texts in its dialect of Lark; `formats` writes them. A compiled one is kept, and every
answer gets a copy, for a schema usually comes more than once.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

import llguidance
import numpy as np
from numpy.typing import NDArray

from openworks.core.errors import InternalError, InvalidRequestError, UnsupportedParameterError
from openworks.core.json import JsonObject
from openworks.engines.batched.formats.grammar import json_rule
from openworks.engines.batched.grammar_schema import check_schema, malformed
from openworks.engines.batched.tokenizer import Tokenizer

_SCHEMA_PARAM = "response_format.json_schema.schema"
_NOT_ALLOWED = "doesn't satisfy the grammar"
_WHERE = "failed to compile JSON schema: "
"""What llguidance puts before a reason: where the schema stands in the text of the grammar."""
_STATE = "\n<"
"""What begins its own state, behind the reason."""
_MAX_REASON_CHARS = 300


class GrammarCompiler:
    """Compiles grammars for one vocabulary. Safe to use from several threads.

    Compiling takes up to a second for the largest schemas that are let through, without the GIL:
    it belongs on a worker thread.
    """

    def __init__(self, tokenizer: Tokenizer, *, max_grammars: int = 64) -> None:
        """Prepare a vocabulary, which takes about a second for a large one.

        Args:
            tokenizer: The model's.
            max_grammars: How many compiled grammars are kept; the least recently used go first.
        """
        self._max_grammars = max_grammars
        self._limits = llguidance.LLParserLimits(
            step_lexer_fuel=200_000,  # some 15 ms of one row's mask
            step_max_items=50_000,  # some 3 ms
            max_items_in_row=2_000,
            max_lexer_states=50_000,  # some 100 MB
            verbose_errors=False,
        )
        self._kept: OrderedDict[str, Matcher] = OrderedDict()
        self._lock = Lock()
        self._why_not = ""
        try:
            self._vocabulary = llguidance.LLTokenizer(
                tokenizer.vocabulary_json(),
                n_vocab=tokenizer.num_tokens,
                eos_token=list(tokenizer.eos_ids) or None,
            )
        except ValueError as exc:  # a vocabulary without grammars is still a vocabulary
            self._why_not = str(exc).partition("\n")[0]

    def json_object(self) -> Matcher:
        """Return a matcher of any JSON object."""
        return self.lark(f"start: {json_rule({'type': 'object'})}", param="response_format")

    def json_schema(self, schema: JsonObject, *, param: str = _SCHEMA_PARAM) -> Matcher:
        """Return a matcher of what `schema` describes, and nothing else.

        Raises:
            InvalidRequestError: It is malformed, too large, or cannot be enforced.
            UnsupportedParameterError: There are no grammars for this model's vocabulary.
        """
        return self.lark(f"start: {json_rule(check_schema(schema, param))}", param=param)

    def lark(self, text: str, *, param: str) -> Matcher:
        """Return a matcher of a grammar whose schemas have been through `check_schema`.

        Args:
            text: The grammar.
            param: The request field that it comes from, for the errors.

        Raises:
            InvalidRequestError: It is none, too large, or lets nothing through.
            UnsupportedParameterError: There are no grammars for this model's vocabulary.
        """
        if self._why_not:
            raise UnsupportedParameterError(
                f"This model's vocabulary takes no grammars: {self._why_not}.", param=param
            )
        with self._lock:
            if (kept := self._kept.get(text)) is not None:
                self._kept.move_to_end(text)
                return kept.copy(param=param)
        grammar = llguidance.LLMatcher.grammar_from_lark(text)
        inner = llguidance.LLMatcher(self._vocabulary, grammar, log_level=0, limits=self._limits)
        made = Matcher(inner, self._vocabulary, param=param)
        made.mask()  # what lets nothing through shows only now
        with self._lock:
            self._kept[text] = made
            if len(self._kept) > self._max_grammars:
                self._kept.popitem(last=False)
            return made.copy(param=param)


class Matcher:
    """How far one answer has come in its grammar. For one thread at a time."""

    def __init__(
        self,
        inner: llguidance.LLMatcher,
        vocabulary: llguidance.LLTokenizer,
        *,
        param: str,
    ) -> None:
        self._inner = inner
        self._vocabulary = vocabulary
        self._num_words = (vocabulary.vocab_size + 31) // 32
        self._param = param

    def copy(self, *, param: str | None = None) -> Matcher:
        """Return another answer that has come as far."""
        param = self._param if param is None else param
        return Matcher(self._inner.deep_copy(), self._vocabulary, param=param)

    def mask(self) -> NDArray[np.int32]:
        """Return which tokens may come next, as `Draw.allowed` has them; lets the GIL go.

        Tokens that end an answer are among them where it may end.

        Raises:
            InvalidRequestError: The grammar takes too much work here, or leads nowhere.
        """
        words = np.empty(self._num_words, dtype=np.int32)
        self._inner.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        if self._inner.is_error():
            raise self._failure()
        return words

    def accept(self, token: int) -> None:
        """Go on by the token that was chosen.

        Raises:
            InvalidRequestError: The grammar takes too much work here.
            InternalError: The token is not one of the mask's.
        """
        if self._inner.consume_token(token):
            return
        reason = self._reason()
        if _NOT_ALLOWED in reason:
            raise InternalError(f"Token {token} is not one that the grammar allows: {reason}.")
        raise self._failure()

    def accept_text(self, text: str) -> bool:
        """Go on by a text that stands already, however it was cut into tokens.

        Returns:
            Whether the grammar has it; otherwise this matcher is of no more use.
        """
        tokens = self._vocabulary.greedy_tokenize(text)
        return self._inner.try_consume_tokens(tokens) == len(tokens)

    def forced_tokens(self) -> list[int]:
        """Return the tokens that must come next, whatever the model says; often none."""
        return self._inner.compute_ff_tokens()

    @property
    def can_end(self) -> bool:
        """Whether the answer is complete, though it may go on."""
        return self._inner.is_accepting()

    @property
    def is_stopped(self) -> bool:
        """Whether the answer is complete and cannot go on."""
        return self._inner.is_stopped()

    def _failure(self) -> InvalidRequestError:
        if self._inner.get_error().startswith("NoExtension"):
            return malformed(self._param, "nothing fits it")
        return malformed(self._param, f"no grammar can be made of it: {self._reason()}")

    def _reason(self) -> str:
        whole = self._inner.get_error().partition(_STATE)[0].rpartition(_WHERE)[2]
        return " ".join(whole.split()).rstrip(".")[:_MAX_REASON_CHARS]
