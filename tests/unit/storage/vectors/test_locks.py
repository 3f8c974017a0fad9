"""Readers share, a writer is alone, and neither waits for ever."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from openworks.storage.vectors.locks import ReadWriteLock


def test_readers_hold_it_together() -> None:
    lock = ReadWriteLock()
    meeting = threading.Barrier(3, timeout=10)

    def read() -> None:
        with lock.read():
            meeting.wait()

    with ThreadPoolExecutor(3) as threads:
        for future in [threads.submit(read) for _ in range(3)]:
            future.result(timeout=20)


def test_nobody_is_there_beside_a_writer() -> None:
    lock = ReadWriteLock()
    inside: list[str] = []
    crowds: list[list[str]] = []

    def write() -> None:
        for _ in range(200):
            with lock.write():
                inside.append("writer")
                crowds.append(list(inside))
                inside.remove("writer")

    def read() -> None:
        for _ in range(200):
            with lock.read():
                inside.append("reader")
                assert "writer" not in inside
                inside.remove("reader")

    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(work) for work in (write, write, read, read)]:
            future.result(timeout=60)
    assert crowds == [["writer"]] * 400
