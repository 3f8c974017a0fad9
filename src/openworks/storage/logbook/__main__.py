"""Entry of the writer process: `python -m openworks.storage.logbook`, told the rest by its input.

When its standard input ends, the server is gone: it writes what it has, and ends too.
"""

from __future__ import annotations

import fcntl
import gc
import signal
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Final, cast

from openworks.core.clock import SystemClock
from openworks.storage.blobs.store import ObjectBlobs
from openworks.storage.logbook.book import Logbook, Pipe, ServerGoneError
from openworks.storage.logbook.database import LogDatabase, SqliteLogDatabase
from openworks.storage.logbook.messages import Start, decode_start
from openworks.storage.logbook.retention import Caretaker
from openworks.storage.logbook.spool import Spool
from openworks.storage.logbook.writer import LogWriter

_PIPE_BYTES: Final = 1 << 20


def main() -> None:
    """Run until standard input ends."""
    # The server is told to stop, and closes our input when it has nothing more to write.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _widen(sys.stdin.fileno())
    pipe = Pipe(sys.stdin.fileno(), sys.stdout.fileno())
    try:
        start = decode_start(pipe.read_line())
    except ServerGoneError:
        return
    book = _open(start, pipe)
    # A batch is thousands of objects without cycles: walking through them again and again is waste.
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    book.run()


def _widen(descriptor: int) -> None:
    """Let a batch pass at once, where the system can: each stop wakes the server once more."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):  # no pipe, or more than this user may have
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _open(start: Start, pipe: Pipe) -> Logbook:
    database = _open_database(start)
    blobs = ObjectBlobs(start.blobs, start.s3)
    return Logbook(
        writer_id=start.writer,
        pipe=pipe,
        writer=LogWriter(database, blobs),
        caretaker=Caretaker(database, blobs, max_age_s=start.max_age_s),
        spool=Spool(Path(start.spool), max_bytes=start.spool_max_bytes),
        clock=SystemClock(),
    )


def _open_database(start: Start) -> LogDatabase:
    if start.dialect == "sqlite":
        return SqliteLogDatabase(start.address)
    # Not at the top: the driver is an extra, and asks for memory that SQLite need not have.
    postgres = import_module("openworks.storage.logbook.postgres")
    return cast("LogDatabase", postgres.PostgresLogDatabase(start.address))


if __name__ == "__main__":
    main()
