"""The data plane: takes gateway requests, finds out who asks and by which policy, and begins."""

from __future__ import annotations

from math import ceil
from random import Random
from typing import Final, NamedTuple, Protocol

from openworks.core.errors import (
    AppError,
    AuthenticationError,
    InvalidRequestError,
    PermissionDeniedError,
)
from openworks.core.ids import AccountId, RequestId
from openworks.gateway.exchange import Exchange
from openworks.gateway.heads import Head, Heads
from openworks.gateway.messages import JSON_HEADER, GatewayAnswer, GatewayRequest
from openworks.gateway.parts import Parts
from openworks.gateway.policy import Policies, Policy
from openworks.ports.calls import Principal
from openworks.ports.snapshots import GatewaySnapshot, Snapshots
from openworks.ports.upstream import Headers
from openworks.wire.cloudflare.gateway_errors import gateway_error_body

OWN_ACCOUNT: Final = "default"
"""In a path, the account of whoever asks."""


class Callers(Protocol):
    """Knows who shows a secret."""

    @property
    def token(self) -> bytes | None:
        """The server's access token, if it has one."""
        ...

    def peek(self, secret: str | None) -> Principal | None:
        """Return who shows `secret`, if that is in memory and fresh; None says nothing."""
        ...

    async def authenticate(self, secret: str | None) -> Principal:
        """Return who shows `secret`.

        Raises:
            AuthenticationError: Nobody.
        """
        ...


class Found(NamedTuple):
    """Who asks which gateway."""

    principal: Principal
    snapshot: GatewaySnapshot
    is_anonymous: bool = False
    """Whether the gateway let them in without a key: nothing of its account's is spent on them."""


class DataPlane:
    """Begins exchanges; one for the process."""

    def __init__(
        self,
        *,
        callers: Callers,
        snapshots: Snapshots,
        policies: Policies,
        parts: Parts,
        rng: Random,
    ) -> None:
        self.parts = parts
        self._callers = callers
        self._snapshots = snapshots
        self._policies = policies
        self._rng = rng
        self._heads = Heads()

    def begin(self, request: GatewayRequest) -> GatewayAnswer | Exchange | Opening:
        """Return the answer, or what must be `run` for it; never waits, and never raises."""
        try:
            head = self._heads.read(request.headers, self._callers.token)
            principal = self._callers.peek(head.secret)
            snapshot: GatewaySnapshot | None = None
            if principal is not None:
                account = account_of(principal, request.account)
                snapshot = self._snapshots.snapshot_nowait(account, request.gateway)
            if principal is None or snapshot is None:
                return Opening(self, request, head)
            return self._exchange(request, head, principal, snapshot).begin()
        except AppError as error:
            return refusal(error)

    def _exchange(
        self,
        request: GatewayRequest,
        head: Head,
        principal: Principal,
        snapshot: GatewaySnapshot,
        *,
        is_anonymous: bool = False,
    ) -> Exchange:
        """Make the exchange of a request of which everything is known.

        Raises:
            PermissionDeniedError: The key is not for calls.
        """
        if "inference" not in principal.scopes:
            raise PermissionDeniedError("This key lacks the scope 'inference' that calls need.")
        return Exchange(
            self._new_id(),
            self.parts,
            request,
            head,
            principal,
            self._policies.of(snapshot),
            is_anonymous=is_anonymous,
        )

    async def open(self, request: GatewayRequest, head: Head) -> Exchange:
        """Ask the database who asks and by which policy.

        Raises:
            AuthenticationError: Nobody knows the secret.
            PermissionDeniedError: The path names another's account.
            InvalidRequestError: There is no such gateway.
            StorageError: The database is away.
        """
        found = await self.find(request, head.secret)
        return self._exchange(
            request, head, found.principal, found.snapshot, is_anonymous=found.is_anonymous
        )

    async def find(self, request: GatewayRequest, secret: str | None) -> Found:
        """Ask the database who shows `secret`, and for the gateway of the path.

        Raises:
            AuthenticationError: Nobody knows the secret, or the gateway asks for one.
            PermissionDeniedError: The path names another's account.
            InvalidRequestError: There is no such gateway.
            StorageError: The database is away.
        """
        try:
            principal = await self._callers.authenticate(secret)
        except AuthenticationError:
            if secret is not None:
                raise
            return await self._find_without_key(request)
        account = account_of(principal, request.account)
        snapshot = await self._snapshots.snapshot(account, request.gateway)
        if snapshot is None:
            raise _no_gateway(request.gateway)
        return Found(principal, snapshot)

    async def _find_without_key(self, request: GatewayRequest) -> Found:
        """Let somebody pass who shows no key, where the gateway asks for none.

        They make no gateway, and bring a provider's credential of their own: nothing of the
        account's is spent on them.
        """
        account = AccountId(request.account)
        snapshot = await self._snapshots.existing(account, request.gateway)
        if snapshot is None or snapshot.gateway.authentication:
            raise AuthenticationError(
                "This gateway asks for a key: send it as cf-aig-authorization: Bearer YOUR_KEY.",
                code="missing_api_key",
            )
        nobody = Principal(account_id=account, scopes=frozenset({"inference"}))
        return Found(nobody, snapshot, is_anonymous=True)

    def policy_of(self, snapshot: GatewaySnapshot) -> Policy:
        """Return a gateway's policy, for calls that are no exchanges."""
        return self._policies.of(snapshot)

    def _new_id(self) -> RequestId:
        """Return an id that sorts by time: 48 bits of milliseconds, 80 of chance."""
        now_ms = int(self.parts.clock.now_s() * 1000)
        return RequestId(f"{now_ms:012X}{self._rng.getrandbits(80):020X}")


class Opening:
    """A request of which something must be asked of the database first."""

    __slots__ = ("_head", "_plane", "_request")

    def __init__(self, plane: DataPlane, request: GatewayRequest, head: Head) -> None:
        self._plane = plane
        self._request = request
        self._head = head

    async def run(self) -> GatewayAnswer:
        """Return the answer; as `Exchange.run`."""
        try:
            exchange = await self._plane.open(self._request, self._head)
        except AppError as error:
            return refusal(error)
        begun = exchange.begin()
        return begun if isinstance(begun, GatewayAnswer) else await begun.run()

    def abandon(self) -> None:
        """Do nothing: no call has begun."""


def account_of(principal: Principal, named: str) -> AccountId:
    """Return the account that a path means, if the caller may use it.

    Raises:
        PermissionDeniedError: It is another's.
    """
    own = principal.account_id
    if named in (own, OWN_ACCOUNT):
        return own
    if principal.key_id is None:  # an open server, or its owner's token: any account is theirs
        return AccountId(named)
    raise PermissionDeniedError(
        f"This key is not of the account {named!r:.80}.", code="account_mismatch"
    )


def _no_gateway(gateway: str) -> InvalidRequestError:
    """A 400, as Cloudflare's: clients look for it."""
    return InvalidRequestError(
        f"Please configure AI Gateway: this account has no gateway {gateway!r:.80}.",
        code="gateway_not_found",
    )


def refusal(error: AppError) -> GatewayAnswer:
    """Answer a request that never became a call."""
    headers: Headers = [JSON_HEADER]
    if isinstance(error, AuthenticationError):
        headers.append((b"www-authenticate", b"Bearer"))
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, ceil(error.retry_after_s))))
    return GatewayAnswer(
        status=error.status, headers=headers, body=gateway_error_body(error), error=error
    )
