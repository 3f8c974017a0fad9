"""`/v1/uploads`: files that come in parts."""

from __future__ import annotations

import re
from typing import Final

from openai.types import UploadCompleteParams, UploadCreateParams

from openworks.api.answers import Answer, Json
from openworks.api.context import Context, as_object
from openworks.api.multipart import form_of
from openworks.api.openai import values
from openworks.api.openai.files import file_body, media_type, ttl_of
from openworks.api.openai.objects import path_id
from openworks.core.json import JsonObject
from openworks.ports.files import File
from openworks.ports.uploads import Upload
from openworks.services.files import NewFile, clean_name
from openworks.wire.openai.validate import RequestValidator

_CREATE: Final = RequestValidator(UploadCreateParams)
_COMPLETE: Final = RequestValidator(UploadCompleteParams)
_MD5: Final = re.compile(r"[0-9a-fA-F]{32}")


async def create(context: Context) -> Answer:
    """Announce a file that comes in parts."""
    body = context.json()
    params = _CREATE.check(body)
    new = NewFile(
        account_id=context.principal.account_id,
        filename=clean_name(params["filename"], "filename"),
        media_type=media_type(params["mime_type"]),
        purpose=params["purpose"],
        ttl_s=ttl_of(as_object(body)),
    )
    return Json(_body(await context.services.uploads.create(new, params["bytes"])))


async def add_part(context: Context) -> Answer:
    """Keep a part, which comes as the field `data` of a form."""
    form = form_of(context.request.scope)
    for name in form.fields:
        raise values.invalid(name[:80], f"Unknown field {name[:80]!r}: a part has 'data' alone.")
    if form.file is None:
        raise values.missing("data")
    part = await context.services.uploads.add_part(
        context.principal.account_id, _id(context), form.file
    )
    return Json(
        {
            "id": part.id,
            "object": "upload.part",
            "created_at": part.created_at_s,
            "upload_id": part.upload_id,
        }
    )


async def complete(context: Context) -> Answer:
    """Make a file of the parts that are named, in their order."""
    params = _COMPLETE.check(context.json())
    checksum = params.get("md5")
    if checksum is not None and not _MD5.fullmatch(checksum):
        raise values.invalid(
            "md5", f"Invalid 'md5': expected 32 hexadecimal digits, got {checksum[:80]!r}."
        )
    completed = await context.services.uploads.complete(
        context.principal.account_id,
        _id(context),
        list(params["part_ids"]),
        None if checksum is None else checksum.lower(),
    )
    return Json(_body(completed.upload, completed.file))


async def cancel(context: Context) -> Answer:
    """Give an upload up."""
    return Json(
        _body(await context.services.uploads.cancel(context.principal.account_id, _id(context)))
    )


def _body(upload: Upload, file: File | None = None) -> JsonObject:
    return {
        "id": upload.id,
        "object": "upload",
        "bytes": upload.size_bytes,
        "created_at": upload.created_at_s,
        "expires_at": upload.expires_at_s,
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": upload.status,
        "file": None if file is None else file_body(file),
    }


def _id(context: Context) -> str:
    return path_id(context, "upload_id")
