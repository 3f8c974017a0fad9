"""Grammars in llguidance's dialect of Lark, put together rule by rule."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence

from openworks.core.json import JsonObject
from openworks.engines.batched.formats.tools import Tool

_SPACING: JsonObject = {
    "whitespace_flexible": False,  # or a weak model writes blanks for ever
    "item_separator": ", ?",
    "key_separator": ": ?",
}
_SAYS_MORE = frozenset({"additionalProperties", "patternProperties", "$ref"}) | {
    "allOf",
    "anyOf",
    "oneOf",
    "unevaluatedProperties",
}


class Grammar:
    """The rules of one grammar while it is made; `start` is where it begins."""

    def __init__(self, token_ids: Mapping[str, int]) -> None:
        self.token_ids = token_ids
        self._rules: list[str] = []

    @property
    def size(self) -> int:
        """How many rules there are; makes the next one's name unlike the others."""
        return len(self._rules)

    def rule(self, name: str, body: str) -> str:
        """Add a rule and return its name."""
        self._rules.append(f"{name}: {body}")
        return name

    def text_before(self, marker: str) -> str:
        """Add the rule of any text up to and with `marker`; return the expression for it."""
        if marker in self.token_ids:
            return f"/(.|\\n)*/ {spelled(marker, self.token_ids)}"
        name = f"text_{self.size}"
        return self.rule(f"{name}[suffix={_literal(marker)}]", "/(.|\\n)*/").partition("[")[0]

    def one_of(self, tools: Sequence[Tool], head: Callable[[str], str], tail: str = "") -> str:
        """Add the rule of a call of any of the tools; return its name.

        Args:
            tools: What may be called.
            head: Makes what is before the arguments of a function's name.
            tail: What is behind them.
        """
        end = spelled(tail, self.token_ids)
        calls = [
            f"{spelled(head(tool.name), self.token_ids)} "
            f"{self.rule(f'arguments_{self.size}', arguments_rule(tool))} {end}"
            for tool in tools
        ]
        return self.rule(f"one_of_{self.size}", " | ".join(calls))

    def text(self) -> str:
        """Return the grammar."""
        return "\n".join(["%llguidance {}", *self._rules, ""])


def spelled(text: str, token_ids: Mapping[str, int]) -> str:
    """Return the expression of a fixed text; what is a token of its own is written by its id."""
    inside = sorted((marker for marker in token_ids if marker in text), key=len, reverse=True)
    if not inside:
        return _literal(text) if text else ""
    parts = re.split(f"({'|'.join(map(re.escape, inside))})", text)
    return " ".join(
        f"<[{token_ids[part]}]>" if part in token_ids else _literal(part) for part in parts if part
    )


def arguments_rule(tool: Tool) -> str:
    """Return the expression of a tool's arguments: a JSON object that its schema allows."""
    schema: JsonObject = {**tool.parameters, "type": "object"}
    if "properties" in schema and not _SAYS_MORE & schema.keys():
        # Nothing forbids a weak model to invent members, and nobody wants them.
        schema["additionalProperties"] = False
    return json_rule(schema, lenient=not tool.strict)


def json_rule(schema: JsonObject, *, lenient: bool = False) -> str:
    """Return the expression of a JSON value.

    Args:
        schema: What it must fit; its members come in the schema's order.
        lenient: Pass over keywords that cannot be enforced; otherwise they are an error of the
            grammar.
    """
    return f"%json {json.dumps({**schema, 'x-guidance': {**_SPACING, 'lenient': lenient}})}"


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
