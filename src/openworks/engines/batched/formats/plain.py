"""The format of models that know no tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openworks.engines.batched.formats.answer import Answer
from openworks.engines.batched.formats.base import Format
from openworks.engines.batched.formats.grammar import Grammar
from openworks.engines.batched.formats.reader import NotACall, Steps
from openworks.engines.batched.formats.tools import Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain(Format):
    """Content, after reasoning where the model has it."""

    name: str = "plain"

    @property
    def knows_calls(self) -> bool:
        return False

    def read_calls(self, answer: Answer, marker: str) -> Steps[None]:
        raise NotACall

    def _calls(
        self, grammar: Grammar, tools: Sequence[Tool], *, parallel: bool, after_trigger: str
    ) -> str:
        raise ValueError("A model that knows no tools cannot be made to call one.")
