"""Writes the parts of the documentation that the code knows best.

    python -m tools.generate_docs          # write them
    python -m tools.generate_docs --check  # fail if one is out of date

A test runs the check, so that no table lags behind the code.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any, get_type_hints

from openworks.api.routes import ROUTES
from openworks.app.settings import Settings
from openworks.core.errors import error_classes
from openworks.gateway.providers.prices import Prices
from openworks.gateway.providers.registry import Providers
from openworks.services.catalog_files import read_catalog
from openworks.wire.cloudflare.gateway_errors import NUMBERS
from tools.openai_endpoints import blank, noun, openai_endpoints

ROOT = Path(__file__).parent.parent


def coverage_table() -> str:
    """Which of the nouns of OpenAI's SDK are served, and how much of each."""
    known = openai_endpoints()
    served = {
        (spec.method, blank(spec.path.removeprefix("/v1").replace(":path", "")))
        for spec in ROUTES
        if spec.path.startswith("/v1")
    }
    totals = Counter(noun(path) for _, path in known)
    counts = Counter(noun(path) for method, path in known if (method, path) in served)
    extra = sorted(f"`{method} /v1{path}`" for method, path in served - known)
    ordered = sorted(totals, key=lambda name: (-counts[name], name))
    rows = [f"| {name} | {counts[name]} of {totals[name]} |" for name in ordered if counts[name]]
    rest = ", ".join(f"{name} ({totals[name]})" for name in ordered if not counts[name])
    return "\n".join(
        [
            "| OpenAI API | endpoints served |",
            "|---|---|",
            *rows,
            f"| all | {sum(counts.values())} of {sum(totals.values())} |",
            "",
            f"Beyond OpenAI's: {', '.join(extra)}. Not served yet, each answered by a typed error "
            f"that names it: {rest}.",
        ]
    )


def routes_table() -> str:
    """Every route with its handler's sentence."""
    rows = [
        f"| `{spec.method} {spec.path.replace(':path', '')}` | {spec.scope or 'open'} "
        f"| {_first_line(spec.handler)} |"
        for spec in ROUTES
    ]
    return "\n".join(["| route | key scope | what it does |", "|---|---|---|", *rows])


def settings_table() -> str:
    """Every setting with its environment variable, default and meaning."""
    rows = ["| setting | environment | default | meaning |", "|---|---|---|---|"]
    rows += [
        f"| `{path}` | `OPENWORKS_{path.upper().replace('.', '__')}` | `{default}` | {meaning} |"
        for path, default, meaning in _settings(Settings, "")
    ]
    return "\n".join(rows)


def errors_table() -> str:
    """Every error class with its status and code."""
    rows = ["| status | code | type | retry | meaning |", "|--:|---|---|---|---|"]
    for error_class in sorted(error_classes().values(), key=lambda c: (c.status, c.__name__)):
        if error_class.__module__ != "openworks.core.errors" or not error_class.default_code:
            continue
        retry = "yes" if error_class.retryable else ""
        rows.append(
            f"| {error_class.status} | `{error_class.default_code}` | `{error_class.type}` "
            f"| {retry} | {_first_line(error_class)} |"
        )
    return "\n".join(rows)


def catalogue_table() -> str:
    """Every model of the catalogue."""
    rows = ["| id | task | context | llama.cpp weights |", "|---|---|--:|---|"]
    for entry in sorted(read_catalog().entries, key=lambda e: (e.task, e.id)):
        source = entry.weights.get("llamacpp")
        where = f"`{source.repo or source.package}`" if source else "-"
        gated = " (gated)" if entry.gated else ""
        rows.append(
            f"| `{entry.id}` | {entry.task} | {entry.context_tokens or '-'} | {where}{gated} |"
        )
    return "\n".join(rows)


def providers_table() -> str:
    """Every provider of the gateway, and what its prices are taken from."""
    checked = {source.provider: source for source in Prices().sources()}
    rows = ["| slug | provider | base | OpenAI's shape | priced models |", "|---|---|---|---|--:|"]
    for row in Providers().rows():
        shape = f"`{row['chat']}`" if row["chat"] else "translated, or not at all"
        source = checked.get(row["slug"])
        priced = str(len(source.models)) if source is not None and source.models else "-"
        rows.append(
            f"| `{row['slug']}` | {row['name']} | `{row['base'] or 'this server'}` | {shape} "
            f"| {priced} |"
        )
    return "\n".join(rows)


def numbers_table() -> str:
    """Cloudflare's numbers of the gateway's own errors."""
    rows = ["| number | our code |", "|--:|---|"]
    rows += [
        f"| {number} | `{code}` |"
        for code, number in sorted(NUMBERS.items(), key=lambda item: (item[1], item[0]))
    ]
    return "\n".join(rows)


PARTS = {
    "README.md": {"coverage": coverage_table},
    "docs/reference/routes.md": {"routes": routes_table, "coverage": coverage_table},
    "docs/reference/settings.md": {"settings": settings_table},
    "docs/reference/errors.md": {"errors": errors_table},
    "docs/reference/catalogue.md": {"catalogue": catalogue_table},
    "docs/reference/gateway.md": {"providers": providers_table, "numbers": numbers_table},
}


def regenerated(file: str) -> str:
    """Return a file's text with its generated parts made anew."""
    text = (ROOT / file).read_text(encoding="utf-8")
    for name, make in PARTS[file].items():
        begin, end = f"<!-- {name}: generated by tools/generate_docs.py -->", f"<!-- /{name} -->"
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not (found and ended):
            raise ValueError(f"{file} lacks the marks {begin!r} and {end!r}")
        text = f"{before}{begin}\n{make()}\n{end}{after}"
    return text


def main() -> None:
    """Write or check every generated part."""
    stale = [file for file in PARTS if regenerated(file) != (ROOT / file).read_text("utf-8")]
    if "--check" in sys.argv:
        sys.exit(f"out of date: {', '.join(stale)}; run: make docs" if stale else 0)
    for file in stale:
        (ROOT / file).write_text(regenerated(file), encoding="utf-8")
        print(f"wrote {file}")


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").splitlines()[0]


def _settings(kind: type, path: str) -> list[tuple[str, str, str]]:
    meanings, hints = _attribute_docs(kind), get_type_hints(kind)
    rows = []
    for field in dataclasses.fields(kind):
        where = f"{path}.{field.name}" if path else field.name
        inner = hints[field.name]
        if dataclasses.is_dataclass(inner) and isinstance(inner, type):
            rows += _settings(inner, where)
        else:
            rows.append((where, _default(field), meanings.get(field.name, "")))
    return rows


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return str(field.default)
    assert field.default_factory is not dataclasses.MISSING
    return str(field.default_factory())


def _attribute_docs(kind: type) -> dict[str, str]:
    """The strings below a class's fields, which Python itself does not keep."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    docs = {}
    for statement, below in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            docs[statement.target.id] = " ".join(str(below.value.value).split())
    return docs


if __name__ == "__main__":
    main()
