"""`/v1/files`: files that callers bring and read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, cast, get_args

import orjson
from openai.types import FileCreateParams
from starlette.responses import Response

from openworks.api.answers import Answer, Json
from openworks.api.context import Context
from openworks.api.downloads import Download, Span, span_of
from openworks.api.multipart import form_of
from openworks.api.openai import values
from openworks.api.openai.objects import list_body, path_id
from openworks.core.errors import InvalidRequestError, RangeNotSatisfiableError
from openworks.core.json import JsonObject, JsonValue
from openworks.ports.files import File
from openworks.services.files import NewFile, Purpose, clean_name
from openworks.wire.openai.errors import error_body
from openworks.wire.openai.validate import RequestValidator

_VALIDATOR: Final = RequestValidator(FileCreateParams)
_MAX_LIMIT: Final = 10_000
_MIN_TTL_S: Final = 3600
_MAX_TTL_S: Final = 30 * 86_400
_MAX_MEDIA_TYPE: Final = 255
_MEDIA_TYPE: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(;[ -~]*)?")
_FIELD: Final = re.compile(r"expires_after\[([a-z_]{1,40})\]")
_UNSEEN: Final = {
    # A browser saves what it is sent, and neither shows nor runs it.
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox; default-src 'none'",
    "cache-control": "private",
    "accept-ranges": "bytes",
}


async def create(context: Context) -> Answer:
    """Check a file that comes as a form, and keep it."""
    form = form_of(context.request.scope)
    body = _body_of(form.fields)
    if form.file is not None:
        body["file"] = form.file.name
    params = _VALIDATOR.check(body)
    assert form.file is not None  # the type requires it
    new = NewFile(
        account_id=context.principal.account_id,
        filename=clean_name(form.file.name, "file"),
        media_type=media_type(form.file.media_type),
        purpose=params["purpose"],
        ttl_s=ttl_of(body),
    )
    return Json(file_body(await context.services.files.create(new, form.file)))


async def list_files(context: Context) -> Answer:
    """List files, newest first, by purpose."""
    query = context.request.query_params
    purpose = query.get("purpose")
    if purpose is not None and purpose not in get_args(Purpose):
        raise values.invalid(
            "purpose",
            f"purpose must be one of {', '.join(get_args(Purpose))}, got {purpose[:80]!r}.",
        )
    page = await context.services.files.list(
        context.principal.account_id,
        values.page(query, limit=_MAX_LIMIT, order="desc", most=_MAX_LIMIT),
        purpose=None if purpose is None else cast("Purpose", purpose),
    )
    return Json(list_body([file_body(file) for file in page.items], has_more=page.has_more))


async def retrieve(context: Context) -> Answer:
    """Return what is known of one."""
    return Json(file_body(await _find(context)))


async def delete(context: Context) -> Answer:
    """Remove one with its content."""
    file_id = _id(context)
    await context.services.files.delete(context.principal.account_id, file_id)
    return Json({"id": file_id, "object": "file", "deleted": True})


async def content(context: Context) -> Answer:
    """Send the content of one, or a part of it (`Range`)."""
    file = await _find(context)
    tag = f'"{file.id}"'  # the content of a file never changes
    headers = context.request.headers
    asked = headers.get("range") if headers.get("if-range", tag) == tag else None
    try:
        span = span_of(asked, file.size_bytes)
    except RangeNotSatisfiableError as error:
        return _unsatisfiable(error, file)
    whole = Span(start=0, length=file.size_bytes)
    part = span or whole
    length = 0 if context.request.method == "HEAD" else part.length
    return Download(
        context.services.files.read(file, start=part.start, length=length),
        name=file.filename,
        media_type=file.media_type or "application/octet-stream",
        status=200 if span is None else 206,
        headers={
            **_UNSEEN,
            "etag": tag,
            "content-length": str(part.length),
            **({} if span is None else {"content-range": span.header(file.size_bytes)}),
        },
    )


def file_body(file: File) -> JsonObject:
    """Return a file as the API shows it."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size_bytes,
        "created_at": file.created_at_s,
        "expires_at": file.expires_at_s,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def ttl_of(body: JsonObject) -> int | None:
    """Return how long a file is to live; None where the body, which was checked, does not say."""
    policy = body.get("expires_after")
    if policy is None:
        return None
    assert isinstance(policy, dict)
    seconds = policy["seconds"]
    assert isinstance(seconds, int)
    if not _MIN_TTL_S <= seconds <= _MAX_TTL_S:
        raise values.invalid(
            "expires_after.seconds",
            f"Invalid 'expires_after.seconds': it must be between {_MIN_TTL_S} and {_MAX_TTL_S}, "
            f"got {seconds}.",
        )
    return seconds


def media_type(text: str) -> str:
    """Return what a client says that a file is, if it can be said to others; empty otherwise."""
    is_one = len(text) <= _MAX_MEDIA_TYPE and _MEDIA_TYPE.fullmatch(text)
    return text if is_one else ""


def _body_of(fields: Mapping[str, str]) -> JsonObject:
    """Return the fields of a form as they would be in JSON: `expires_after[seconds]` is nested."""
    body: JsonObject = {}
    policy: JsonObject = {}
    for name, text in fields.items():
        if (found := _FIELD.fullmatch(name)) is not None:
            policy[found[1]] = _number(text) if found[1] == "seconds" else text
            body["expires_after"] = policy
        elif name == "file":
            raise InvalidRequestError("The part 'file' must be a file.", param="file")
        else:
            body[name] = text
    return body


def _number(text: str) -> JsonValue:
    is_number = text.isascii() and text.isdigit() and len(text) < 10
    return int(text) if is_number else text


def _unsatisfiable(error: RangeNotSatisfiableError, file: File) -> Response:
    return Response(
        orjson.dumps(error_body(error)),
        status_code=error.status,
        media_type="application/json",
        headers={"content-range": f"bytes */{file.size_bytes}", "accept-ranges": "bytes"},
    )


async def _find(context: Context) -> File:
    return await context.services.files.get(context.principal.account_id, _id(context))


def _id(context: Context) -> str:
    return path_id(context, "file_id")
