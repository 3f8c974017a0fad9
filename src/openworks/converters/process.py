"""Reads documents in processes that end with them, or are ended: as many at once as may be."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field

from openworks.converters.formats import FORMATS, format_of, media_type_of
from openworks.converters.messages import Done, Start, decode_reply, encode_start, error_of
from openworks.core.errors import FileTooComplexError, InvalidFileError, ServerOverloadedError
from openworks.ports.converters import (
    WHOLE,
    ConversionOptions,
    Converted,
    Document,
    DocumentFormat,
)

log = logging.getLogger(__name__)

_MIB: Final = 1 << 20
_PATIENCE: Final = 10
"""How much longer than its processor time a conversion may take on a busy machine."""
_FRAME_BYTES: Final = 1 << 20
"""What an answer has beside its text."""
_MAX_CHAR_BYTES: Final = 4
_READ_BYTES: Final = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentsConfig:
    """What reading documents may take."""

    max_bytes: Annotated[int, Field(ge=1)] = 100 << 20
    """Bytes of all files in one request to convert them."""
    max_files: Annotated[int, Field(ge=1)] = 32
    """Files in one request to convert them."""
    max_processes: Annotated[int, Field(ge=1)] = 2
    """Documents read at once, each in a process of its own; others wait."""
    cpu_s: Annotated[int, Field(ge=1)] = 30
    """Seconds of processor time for one document; ten times as many may pass."""
    memory_mib: Annotated[int, Field(ge=128)] = 1024
    """Memory for the process that reads one document."""
    unpacked_mib: Annotated[int, Field(ge=1)] = 256
    """What one document that is an archive may hold: docx, pptx, xlsx, odt, ods."""
    max_chars: Annotated[int, Field(ge=1)] = 20_000_000
    """Characters of text from one document."""


class ProcessConverter:
    """Reads each document in a process of its own. Implements `ports.converters.Converter`."""

    def __init__(self, config: DocumentsConfig) -> None:
        self._config = config
        self._turns = asyncio.Semaphore(config.max_processes)
        # Nothing of what this process knows of its surroundings: there are secrets in it.
        self._environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def formats(self) -> Sequence[DocumentFormat]:
        return FORMATS

    def media_type(self, document: Document) -> str:
        return media_type_of(document.name, document.media_type)

    async def convert(self, document: Document, options: ConversionOptions = WHOLE) -> Converted:
        format_of(document.name, document.media_type)  # what nobody reads needs no process
        async with self._turns:
            data, status = await self._answer(document, options)
        reply = decode_reply(data) if status == 0 else None
        if reply is None:
            raise self._ended(document.name, status)
        if isinstance(reply, Done):
            return reply.converted
        raise error_of(reply)

    async def _answer(self, document: Document, options: ConversionOptions) -> tuple[bytes, int]:
        """Return what the process wrote, and how it ended."""
        config = self._config
        start = Start(
            name=document.name,
            media_type=document.media_type,
            options=options,
            memory_bytes=config.memory_mib * _MIB,
            cpu_s=config.cpu_s,
            wall_s=config.cpu_s * _PATIENCE,
            max_chars=config.max_chars,
            max_unpacked_bytes=config.unpacked_mib * _MIB,
        )
        module = ("-P", "-B", "-m", "openworks.converters", encode_start(start))
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *module,
                stdin=document.file,
                stdout=PIPE,
                stderr=DEVNULL,
                env=self._environment,
            )
        except OSError as exc:
            raise ServerOverloadedError(
                f"This machine cannot start a process that reads {document.name!r}: "
                f"{exc.strerror}.",
                retry_after_s=5.0,
            ) from exc
        try:
            async with asyncio.timeout(start.wall_s):
                data = await _read(process, config.max_chars * _MAX_CHAR_BYTES + _FRAME_BYTES)
                return data, await process.wait()
        except TimeoutError:
            return b"", -signal.SIGALRM
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def _ended(self, name: str, status: int) -> InvalidFileError:
        """Say why a process gave no answer."""
        log.warning("converters.died", extra={"status": status})
        if status in (-signal.SIGXCPU, -signal.SIGALRM):
            return FileTooComplexError(
                f"Reading {name!r} takes more than {self._config.cpu_s} seconds."
            )
        if status == -signal.SIGABRT:  # how libraries end that get no more memory
            return FileTooComplexError(
                f"Reading {name!r} takes more than {self._config.memory_mib} MiB of memory."
            )
        return InvalidFileError(f"{name!r} is broken: what reads it ended with status {status}.")


async def _read(process: Process, max_bytes: int) -> bytes:
    """Return what a process writes; it is ended when that is more than it should."""
    assert process.stdout is not None
    data = bytearray()
    while piece := await process.stdout.read(_READ_BYTES):
        data += piece
        if len(data) > max_bytes:
            process.kill()
            return b""
    return bytes(data)
