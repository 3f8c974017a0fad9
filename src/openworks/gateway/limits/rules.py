"""A gateway's rules, made ready: which bucket a claim counts in, and how much."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeAlias

from openworks.core.ids import KeyId
from openworks.gateway.limits.windows import Bucket
from openworks.ports.gateways import Metadata, RateLimit, SpendRule

NANO = 1_000_000_000
"""Money is counted in billionths of a dollar: sums of whole numbers are the same in any order."""

OTHERS = "*"
"""The bucket that values beyond the bound share."""

_PROBES = 8

MakeBucket: TypeAlias = Callable[[str], Bucket]


class Subject(Protocol):
    """What rules look at: a claim, or what the ledger kept of a call."""

    @property
    def key_id(self) -> KeyId | None: ...
    @property
    def provider(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def metadata(self) -> Metadata: ...
    @property
    def tokens(self) -> int: ...
    @property
    def cost_usd(self) -> float: ...


Read: TypeAlias = Callable[[Subject], str]


class Space:
    """How many buckets there are in all, over the rules of every gateway."""

    __slots__ = ("_make_place", "_max", "_on_drop", "num_buckets")

    def __init__(
        self,
        max_buckets: int,
        *,
        make_place: Callable[[], object],
        on_drop: Callable[[Bucket], None],
    ) -> None:
        """Count up to a bound.

        Args:
            max_buckets: The bound.
            make_place: Called at the bound, to look for idle buckets and drop some.
            on_drop: Told of every bucket that goes.
        """
        self._max = max_buckets
        self._make_place = make_place
        self._on_drop = on_drop
        self.num_buckets = 0

    def has_place(self) -> bool:
        """Whether there may be one more."""
        if self.num_buckets >= self._max:
            self._make_place()
        return self.num_buckets < self._max

    def drop(self, bucket: Bucket) -> None:
        """Note that a bucket is gone."""
        self.num_buckets -= 1
        self._on_drop(bucket)


class Buckets:
    """The buckets of one rule, one for each value that callers come with, up to a bound.

    Values beyond the bound share one bucket with the limit of one: they may be refused too early,
    and none ever passes too often. As long as that bucket counts anything, new values join it, so
    none of them gets the limit twice. Values that were seen before are not touched by this.
    """

    __slots__ = ("_by_value", "_make", "_max", "_others", "_space")

    def __init__(self, make: MakeBucket, *, max_values: int, space: Space) -> None:
        self._make = make
        self._max = max_values
        self._space = space
        self._by_value: dict[str, Bucket] = {}
        self._others: Bucket | None = None

    def __len__(self) -> int:
        return len(self._by_value)

    def __iter__(self) -> Iterator[tuple[str, Bucket]]:
        yield from list(self._by_value.items())
        if self._others is not None:
            yield OTHERS, self._others

    def get(self, value: str, now_s: float) -> Bucket:
        """Return the bucket of `value`, a new one where there is none."""
        found = self._by_value.get(value)
        return found if found is not None else self._add(value, now_s)

    def forget_idle(self, now_s: float) -> bool:
        """Look at the oldest buckets and drop idle ones; return whether none is left at all."""
        by_value = self._by_value
        for _ in range(min(_PROBES, len(by_value))):
            value = next(iter(by_value))
            bucket = by_value.pop(value)
            if not bucket.is_idle(now_s):
                by_value[value] = bucket
            else:
                self._space.drop(bucket)
        if self._others is not None and self._others.is_idle(now_s):
            self._others = None
        return not by_value and self._others is None

    def clear(self) -> None:
        """Forget everything, as the rule is gone."""
        for bucket in self._by_value.values():
            self._space.drop(bucket)
        self._by_value.clear()
        self._others = None

    def _add(self, value: str, now_s: float) -> Bucket:
        self.forget_idle(now_s)
        has_place = len(self._by_value) < self._max and self._space.has_place()
        if self._others is None and has_place:
            bucket = self._by_value[value] = self._make(value)
            self._space.num_buckets += 1
            return bucket
        if self._others is None:
            self._others = self._make(OTHERS)
        return self._others


class Rate:
    """One rate limit."""

    __slots__ = ("_read", "buckets", "label", "limit", "limit_header")

    def __init__(self, rule: RateLimit, buckets: Buckets) -> None:
        self.limit = rule.limit
        self.limit_header = (b"x-ratelimit-limit-requests", b"%d" % rule.limit)
        self.label = rule.per
        self.buckets = buckets
        self._read = None if rule.per == "gateway" else _reader(rule.per)

    def bucket(self, claim: Subject, now_s: float) -> Bucket:
        return self.buckets.get("" if self._read is None else self._read(claim), now_s)


class Budget:
    """One spend rule."""

    __slots__ = (
        "_filters", "_parts", "buckets", "id", "is_cost", "limit", "limit_header", "rule",
    )  # fmt: skip

    def __init__(self, rule: SpendRule, buckets: Buckets) -> None:
        self.rule = rule
        self.id = rule.id
        self.is_cost = rule.unit == "cost"
        self.limit = round(rule.limit * NANO) if self.is_cost else int(rule.limit)
        self.limit_header = (b"cf-aig-budget-limit", quantity(self.is_cost, self.limit))
        self.buckets = buckets
        self._filters: tuple[tuple[Read, frozenset[str]], ...] = tuple(
            (_reader(name), frozenset(selector.values))
            for name, selector in rule.by.items()
            if selector.mode == "filter" or selector.values
        )
        self._parts = tuple(
            _reader(name) for name, selector in rule.by.items() if selector.mode == "partition"
        )

    def bucket(self, claim: Subject, now_s: float) -> Bucket | None:
        """Return where a claim counts, or None where the rule does not mean it."""
        for read, values in self._filters:
            if read(claim) not in values:
                return None
        return self.buckets.get(self._value(claim), now_s)

    def amount(self, subject: Subject) -> int:
        """What a claim or a call weighs, in the unit of `limit`."""
        return int(subject.cost_usd * NANO + 0.5) if self.is_cost else subject.tokens

    def in_unit(self, amount: float) -> float:
        """Return dollars or tokens."""
        return amount / NANO if self.is_cost else amount

    def values(self, value: str) -> tuple[str, ...]:
        """Return the partition values that a bucket's name holds."""
        return tuple(_split(value)) if self._parts and value != OTHERS else (value,)[: len(value)]

    def _value(self, claim: Subject) -> str:
        if not self._parts:
            return ""
        if len(self._parts) == 1:
            return _quote(self._parts[0](claim))
        return "/".join(_quote(read(claim)) for read in self._parts)


def quantity(is_cost: bool, amount: int) -> bytes:
    """Write tokens as a whole number, and nano-dollars as dollars with six decimals."""
    if amount < 0:
        amount = 0
    if not is_cost:
        return b"%d" % amount
    micro = amount // (NANO // 1_000_000)
    return b"%d.%06d" % (micro // 1_000_000, micro % 1_000_000)


def rate_identity(rule: RateLimit) -> tuple[object, ...]:
    """What makes a rate limit the same after an edit: another `limit` keeps what was counted."""
    return "rate", rule.per, rule.interval_s, rule.technique


def budget_identity(rule: SpendRule) -> tuple[object, ...]:
    """The same for a spend rule."""
    by = tuple((name, by.mode, tuple(sorted(by.values))) for name, by in rule.by.items())
    return "spend", rule.id, rule.unit, rule.window_s, rule.technique, by


def _reader(name: str) -> Read:
    """Return what reads one property; calls without it have the value that is empty."""
    match name:
        case "key":
            return lambda claim: claim.key_id or ""
        case "model":
            return lambda claim: claim.model
        case "provider":
            return lambda claim: claim.provider
        case "gateway":
            return lambda claim: ""
    entry = name.removeprefix("metadata.")
    if entry == name:
        raise ValueError(
            f"Limits are per gateway, key, model, provider or metadata.NAME, got '{name}'."
        )
    return lambda claim: _text(claim.metadata.get(entry, ""))


def _text(value: str | int | float | bool) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _quote(value: str) -> str:
    """Keep values apart in one name, and any value apart from `*`."""
    if value.isalnum():
        return value
    return value.replace("%", "%25").replace("/", "%2F").replace("*", "%2A")


def _split(value: str) -> Iterator[str]:
    for part in value.split("/"):
        yield part.replace("%2A", "*").replace("%2F", "/").replace("%25", "%")
