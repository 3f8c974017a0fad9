"""`/ai/tomarkdown`: documents as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, cast

import orjson

from openworks.api.answers import Answer
from openworks.api.cloudflare.frame import actor_of, ok
from openworks.api.context import Context
from openworks.api.multipart import Form, FormFile, form_of
from openworks.core.errors import (
    FileTooComplexError,
    InvalidFileError,
    InvalidRequestError,
    UnsupportedFileError,
)
from openworks.core.json import JsonObject, JsonValue
from openworks.gateway.providers.prices import estimate_tokens
from openworks.ports.converters import ConversionOptions, Converted, Document
from openworks.services.files import clean_name
from openworks.wire.cloudflare.fields import checked, missing_field, unknown_field
from openworks.wire.cloudflare.to_markdown import ToMarkdownOptions

_FILES: Final = "files"
_OPTIONS: Final = "conversionOptions"
_PDF: Final = "application/pdf"
_MAX_CHARS: Final = 50_000_000
"""Of all files in one answer, which is in memory."""


async def supported(context: Context) -> Answer:
    """List the kinds of files that can be converted."""
    await actor_of(context)
    return ok(
        [
            {"extension": each.extension, "mimeType": each.media_type}
            for each in context.services.converter.formats()
        ]
    )


async def transform(context: Context) -> Answer:
    """Convert the files of a form; what is wrong with one of them is said in its place."""
    await actor_of(context)
    form = form_of(context.request.scope)
    options = _options(form)
    if not form.files:
        raise missing_field(_FILES)
    results: list[JsonValue] = []
    left = _MAX_CHARS
    for file in form.files:
        result = await _result(context, file, options, left)
        left -= len(str(result.get("data", "")))
        results.append(result)
    return ok(results)


async def _result(
    context: Context, file: FormFile, options: ToMarkdownOptions, max_chars: int
) -> JsonObject:
    converter = context.services.converter
    document = Document(
        name=clean_name(file.name, _FILES), file=file.file, media_type=file.media_type
    )
    result: JsonObject = {
        "id": context.services.new_id("doc_"),
        "name": document.name,
        "mimeType": converter.media_type(document),
    }
    wanted = ConversionOptions(
        base_url=options.html.hostname, css_selector=options.html.css_selector
    )
    try:
        converted = await converter.convert(document, wanted)
        if len(converted.text) > max_chars:
            raise FileTooComplexError(
                f"The files before {document.name!r} leave no room for it in this answer."
            )
    except (InvalidFileError, UnsupportedFileError) as error:
        return {**result, "format": "error", "error": error.message}
    text = _markdown(document.name, converted, has_metadata=options.pdf.metadata)
    num_tokens = estimate_tokens(len(text.encode()))
    return {**result, "format": "markdown", "tokens": num_tokens, "data": text}


def _markdown(name: str, converted: Converted, *, has_metadata: bool) -> str:
    if converted.media_type != _PDF:
        return converted.text
    return "".join(_pdf_parts(name, converted, has_metadata=has_metadata))


def _pdf_parts(name: str, converted: Converted, *, has_metadata: bool) -> Iterator[str]:
    """Yield a PDF as Cloudflare lays it out: what it says of itself, then page by page."""
    if has_metadata:
        yield f"# {name}\n## Metadata\n"
        for key, value in converted.properties.items():
            yield f"- {key}={value}\n"
        yield "\n\n## Contents\n"
    for segment in converted.segments:
        yield f"### Page {segment.page}\n{segment.text}"


def _options(form: Form) -> ToMarkdownOptions:
    for name in form.fields:
        if name != _OPTIONS:
            raise unknown_field(name[:80], [_FILES, _OPTIONS])
    if _OPTIONS not in form.fields:
        return ToMarkdownOptions()
    try:
        value = cast("JsonValue", orjson.loads(form.fields[_OPTIONS]))
    except orjson.JSONDecodeError as exc:
        raise InvalidRequestError(
            f"The field {_OPTIONS!r} is not valid JSON: {exc}.", code="invalid_json", param=_OPTIONS
        ) from exc
    if not isinstance(value, dict):
        raise InvalidRequestError(f"The field {_OPTIONS!r} must be a JSON object.", param=_OPTIONS)
    return checked(ToMarkdownOptions, value)
