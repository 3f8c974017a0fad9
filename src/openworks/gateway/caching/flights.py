"""One upstream call for many who ask the same at once."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import TypeAlias

from openworks.ports.answers_cache import CachedAnswer


class SingleFlight:
    """Lets the first of identical misses ask, while the others wait for its answer.

    Followers wait for the whole answer, also for that of a stream: the leader's stream may break
    or its client may read slowly, and a follower that had begun to replay it would break with it.
    A follower gets the answer, or the lead, or None, which means to ask alone:

    - the leader's client left: the follower that waited longest takes over;
    - the leader failed, or its answer may not be shared: one follower tries once more; when that
      fails too all others ask on their own, so that they do not fail in single file;
    - the wait took too long, or `max_followers` wait already.

    Usage::

        lead = flights.lead(key) or await flights.wait(key)
        if isinstance(lead, Lead):
            with lead:
                ...
                lead.finish(answer)
    """

    def __init__(
        self, *, max_flights: int = 10_000, max_followers: int = 1_000, max_wait_s: float = 120.0
    ) -> None:
        self._flights: dict[bytes, _Flight] = {}
        self._max_flights = max_flights
        self._max_followers = max_followers
        self._max_wait_s = max_wait_s

    def __len__(self) -> int:
        return len(self._flights)

    def lead(self, key: bytes) -> Lead | None:
        """Return the lead, or None when another has it and `wait` is to be asked.

        With `max_flights` under way the lead is one that nobody follows.
        """
        if key in self._flights:
            return None
        flight = _Flight(self._flights, key)
        if len(self._flights) < self._max_flights:
            self._flights[key] = flight
        return Lead(flight)

    async def wait(self, key: bytes) -> CachedAnswer | Lead | None:
        """Return the leader's answer, or the lead when it falls to this caller, or None.

        Cancelling it, as when the client leaves, takes nothing from the others.
        """
        flight = self._flights.get(key)
        if flight is None:
            return self.lead(key)
        if len(flight.followers) >= self._max_followers:
            return None
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[_Turn] = loop.create_future()
        flight.followers.append(turn)
        timer = loop.call_later(self._max_wait_s, self._expire, flight, turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                flight.forget(turn)
            elif isinstance(handed := turn.result(), Lead):  # handed over in the moment of leaving
                handed.leave()
            raise
        finally:
            timer.cancel()

    def _expire(self, flight: _Flight, turn: asyncio.Future[_Turn]) -> None:
        flight.land()  # whoever asks from now on does not wait for this leader
        if not turn.done():
            flight.forget(turn)
            turn.set_result(None)


class Lead:
    """The duty to ask for many; ends with exactly one of `finish`, `fail` and `leave`.

    Leaving a `with` block without any of them is `leave` for a cancellation and `fail` otherwise;
    further calls do nothing.
    """

    __slots__ = ("_flight",)

    def __init__(self, flight: _Flight) -> None:
        self._flight: _Flight | None = flight

    @property
    def followers(self) -> int:
        """How many wait now."""
        return len(self._flight.followers) if self._flight is not None else 0

    def finish(self, answer: CachedAnswer) -> None:
        """Give the answer to everybody who waits, whether or not it is kept."""
        flight, self._flight = self._flight, None
        if flight is not None:
            flight.release(answer)

    def fail(self) -> None:
        """Say that there is no answer to share."""
        flight, self._flight = self._flight, None
        if flight is None:
            return
        flight.failures += 1
        if flight.failures > 1:
            flight.release(None)
        else:
            flight.hand_over()

    def leave(self) -> None:
        """Say that this client left; the next one takes over."""
        flight, self._flight = self._flight, None
        if flight is not None:
            flight.hand_over()

    def __enter__(self) -> Lead:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            self.leave()
        else:
            self.fail()


class _Flight:
    """One key that is being asked for, and who waits for it."""

    __slots__ = ("_flights", "_key", "failures", "followers")

    def __init__(self, flights: dict[bytes, _Flight], key: bytes) -> None:
        self._flights = flights
        self._key = key
        self.followers: deque[asyncio.Future[_Turn]] = deque()
        self.failures = 0

    def land(self) -> None:
        """Let nobody else join."""
        if self._flights.get(self._key) is self:
            del self._flights[self._key]

    def forget(self, turn: asyncio.Future[_Turn]) -> None:
        """Take one who no longer waits out of the line."""
        if turn in self.followers:  # a leader that ended in the same moment may have passed it over
            self.followers.remove(turn)

    def release(self, answer: CachedAnswer | None) -> None:
        """Send everybody on their way."""
        self.land()
        while self.followers:
            turn = self.followers.popleft()
            if not turn.done():
                turn.set_result(answer)

    def hand_over(self) -> None:
        """Make the one who waited longest the leader."""
        while self.followers:
            turn = self.followers.popleft()
            if not turn.done():
                turn.set_result(Lead(self))
                return
        self.land()


_Turn: TypeAlias = "CachedAnswer | Lead | None"
