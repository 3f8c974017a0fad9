"""The connections to one origin: which are free, which are being made, and who waits."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from openworks.gateway.http.config import HttpConfig
from openworks.gateway.http.connection import Connection
from openworks.gateway.http.dial import dial
from openworks.gateway.http.timer_wheel import NEVER_S, TimerWheel
from openworks.ports.upstream import FailureKind, Origin, UpstreamError


class _Turn:
    """A caller that has no connection yet; what it awaits can be ended from outside."""

    __slots__ = ("awaits", "check_s", "deadline_s", "name", "refusal")

    def __init__(self, name: str) -> None:
        self.name = name
        self.awaits: asyncio.Future[Connection | None] | asyncio.Task[None] | None = None
        self.refusal: UpstreamError | None = None
        self.deadline_s = NEVER_S
        self.check_s = NEVER_S

    def expire(self) -> None:
        self.refuse("timeout", f"No connection to '{self.name}' came about in time.")

    def refuse(self, kind: FailureKind, message: str) -> None:
        """Make the caller raise an error."""
        if self.awaits is not None and not self.awaits.done():
            self.refusal = UpstreamError(message, kind=kind, unread=True)
            self.awaits.cancel()


class Pool:
    """At most `max_connections`, the latest used first, the rest of the callers in a queue.

    A slot is held by every connection and every attempt at one; whoever gives up a slot hands it
    to the first in the queue.
    """

    def __init__(
        self,
        origin: Origin,
        host: bytes,
        *,
        config: HttpConfig,
        loop: asyncio.AbstractEventLoop,
        wheel: TimerWheel,
        context: ssl.SSLContext | None,
        on_empty: Callable[[Pool], None],
    ) -> None:
        """Make an empty one.

        Args:
            origin: Where its connections go.
            host: The value of the `Host` header.
            config: The bounds.
            loop: Where it runs.
            wheel: The transport's timer.
            context: For `https`; None for `http`.
            on_empty: Called when the last slot was given up.
        """
        self.origin, self.host, self.config = origin, host, config
        self.loop, self.wheel = loop, wheel
        self.name = f"{origin.host}:{origin.port}"
        self.connections: set[Connection] = set()
        """All that are open, idle or not."""
        self._context = context
        self._on_empty = on_empty
        self._idle: list[Connection] = []
        self._slots = 0
        self._queue: dict[asyncio.Future[Connection | None], None] = {}
        self._turns: set[_Turn] = set()

    @property
    def empty(self) -> bool:
        """Whether nothing is open, under way or waited for."""
        return not (self._slots or self._turns)

    def take_idle(self) -> Connection | None:
        """The latest used connection that is free."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.usable:
                connection.deadline_s = NEVER_S
                return connection
        return None

    async def obtain(self, connect_s: float | None) -> Connection:
        """Wait for a free connection or make one.

        Raises:
            UpstreamError: None came in `connect_s`, or too many wait already.
        """
        turn = _Turn(self.name)
        self._turns.add(turn)
        if connect_s is not None:
            self.wheel.arm(turn, connect_s)
        task = asyncio.current_task()
        cancels = task.cancelling() if task is not None else 0
        try:
            return await self._obtain(turn)
        except asyncio.CancelledError:
            if turn.refusal is None or (task is not None and task.cancelling() > cancels):
                raise
            raise turn.refusal from None
        finally:
            turn.deadline_s = NEVER_S
            turn.awaits = None  # the wheel may hold the turn some seconds more
            self._turns.discard(turn)
            self._note_empty()

    async def _obtain(self, turn: _Turn) -> Connection:
        while True:
            if self._slots < self.config.max_connections:
                self._slots += 1
                return await self._make(turn)
            if len(self._queue) >= self.config.max_waiting:
                message = f"Too many requests wait for a connection to '{self.name}'."
                raise UpstreamError(message, kind="overloaded", unread=True)
            if self._idle:
                # We are here for a fresh one: an idle one makes room.
                self._idle.pop(0).drop()
            connection = await self._stand_in_queue(turn)
            if connection is None:  # a slot
                return await self._make(turn)
            if connection.usable:
                return connection

    async def _stand_in_queue(self, turn: _Turn) -> Connection | None:
        """Return a connection, or None for a slot to make one in."""
        place: asyncio.Future[Connection | None] = self.loop.create_future()
        self._queue[place] = None
        turn.awaits = place
        try:
            return await place
        except asyncio.CancelledError:
            self._queue.pop(place, None)
            if place.done() and not place.cancelled():  # served and cancelled at once
                connection = place.result()
                if connection is None:
                    self._give_slot()
                elif connection.usable:
                    self.release(connection)
            raise

    async def _make(self, turn: _Turn) -> Connection:
        """Connect, in the slot that the caller holds."""
        connection = Connection(self)
        # A task of its own, so that a timeout can end it and leave the caller's alone.
        attempt = self.loop.create_task(self._attempt(connection))
        turn.awaits = attempt
        made = False
        try:
            await attempt
            made = connection.usable
        finally:
            if not made:
                connection.forsake()
                self.lost(connection)
        if not made:
            message = f"'{self.name}' closed the connection at once."
            raise UpstreamError(message, kind="connect", unread=True)
        return connection

    async def _attempt(self, connection: Connection) -> None:
        made = False
        try:
            await dial(self.loop, self.origin, self._context, lambda: connection)
            made = True
        finally:
            # At once, for uvloop completes a TLS handshake also after it has closed the socket
            # under it, and then never reports an end.
            if not made:
                connection.forsake()

    def release(self, connection: Connection) -> None:
        """It is free: for the first in the queue, or to be kept a while."""
        place = self._first_in_queue()
        if place is not None:
            place.set_result(connection)
            return
        self._idle.append(connection)
        self.wheel.arm(connection, self.config.idle_expiry_s)

    def lost(self, connection: Connection) -> None:
        """It has ended, or was never made, and its slot is free; only the first call counts."""
        if not connection.holds_slot:
            return
        connection.holds_slot = False
        self.connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._give_slot()

    def close(self) -> None:
        """End all connections and attempts; their callers get an error."""
        for turn in list(self._turns):
            turn.refuse("connect", f"The connections to '{self.name}' are being closed.")
        for connection in list(self.connections):
            connection.drop()

    def _give_slot(self) -> None:
        place = self._first_in_queue()
        if place is not None:
            place.set_result(None)
            return
        self._slots -= 1
        self._note_empty()

    def _first_in_queue(self) -> asyncio.Future[Connection | None] | None:
        queue = self._queue
        while queue:
            place = next(iter(queue))
            del queue[place]
            if not place.done():
                return place
        return None

    def _note_empty(self) -> None:
        if self.empty:
            self._on_empty(self)
