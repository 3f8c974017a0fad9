"""Every endpoint that the installed `openai` package calls, read from its source."""

from __future__ import annotations

import re
from pathlib import Path

import openai

_CALL = re.compile(
    r"self\._(?P<verb>get|post|delete|patch|put|get_api_list)\(\s*(?:path_template\(\s*)?"
    r'f?"(?P<path>/[^"?]*)'
)
_METHODS = {"get_api_list": "GET"}


def openai_endpoints() -> set[tuple[str, str]]:
    """Return (method, path below `/v1`) with `{}` for every path parameter."""
    folder = Path(openai.__file__).parent / "resources"
    found = set()
    for file in folder.rglob("*.py"):
        for call in _CALL.finditer(file.read_text(encoding="utf-8")):
            method = _METHODS.get(call["verb"], call["verb"].upper())
            found.add((method, blank(call["path"])))
    return found


def blank(path: str) -> str:
    """Replace path parameters, whatever they are called, by `{}`."""
    return re.sub(r"\{[^}]*\}", "{}", path)


def noun(path: str) -> str:
    """The first segment of a path below `/v1`."""
    return path.strip("/").split("/")[0]
