"""The data plane's short way in: what `app.protocol` calls instead of the ASGI application."""

from __future__ import annotations

from openworks.api.body import BodyBudget, BodyLimits
from openworks.api.busy import UnderWay
from openworks.api.gateway.entry import is_special
from openworks.api.gateway.paths import PREFIX_BYTES, read_target
from openworks.api.origins import is_trusted_host
from openworks.core.errors import (
    InternalError,
    PayloadTooLargeError,
    RequestTimeoutError,
    ServerOverloadedError,
)
from openworks.gateway.exchange import Exchange
from openworks.gateway.messages import GatewayAnswer, GatewayRequest
from openworks.gateway.plane import DataPlane, Opening, refusal
from openworks.ports.upstream import Headers
from openworks.services.keys import Keys

_MAX_HOSTS = 1000


class Front:
    """Stands between connections and the data plane; one for the process."""

    prefix = PREFIX_BYTES

    def __init__(
        self,
        plane: DataPlane,
        keys: Keys,
        *,
        limits: BodyLimits,
        budget: BodyBudget,
        under_way: UnderWay,
        allowed_hosts: frozenset[str] = frozenset(),
    ) -> None:
        """Stand in front of a data plane.

        Args:
            plane: Answers.
            keys: Says whether the server is open, so that pages of other sites must be kept off.
            limits: For one body.
            budget: For the bodies of all requests, of either way.
            under_way: The requests of either way.
            allowed_hosts: Names by which an open server may be called.
        """
        self.max_body_bytes = limits.max_bytes
        self._plane = plane
        self._keys = keys
        self._limits = limits
        self._budget = budget
        self._under_way = under_way
        self._allowed_hosts = allowed_hosts
        self._trusted: dict[bytes, bool] = {}

    def read(self, method: bytes, target: bytes, headers: Headers) -> GatewayRequest | None:
        host = b""
        for name, value in headers:
            if name in (b"origin", b"expect"):
                return None
            if name == b"host":
                host = value
        if not self._keys.is_known_guarded and not self._is_trusted(host):
            return None
        request = read_target(method, target, headers)
        # What is more than one exchange goes the long way.
        return None if request is None or is_special(request) else request

    def _is_trusted(self, host: bytes) -> bool:
        known = self._trusted.get(host)
        if known is None:
            known = is_trusted_host(host.decode("latin-1"), self._allowed_hosts)
            if len(self._trusted) < _MAX_HOSTS:
                self._trusted[host] = known
        return known

    def take_body(self, size: int) -> GatewayAnswer | None:
        try:
            self._budget.take(size)
        except ServerOverloadedError as error:
            return refusal(error)
        return None

    def give_back(self, size: int) -> None:
        self._budget.give_back(size)

    def too_large(self) -> GatewayAnswer:
        limit_mib = self._limits.max_bytes / (1 << 20)
        return refusal(
            PayloadTooLargeError(f"The request's body is over the limit of {limit_mib:g} MiB.")
        )

    def too_slow(self) -> GatewayAnswer:
        return refusal(
            RequestTimeoutError(
                f"The request's body did not arrive within {self._limits.timeout_s:g} seconds."
            )
        )

    def begin(self, request: GatewayRequest) -> GatewayAnswer | Exchange | Opening:
        self._under_way.count(1)
        if self._under_way.is_over:
            return refusal(self._under_way.error())
        return self._plane.begin(request)

    def ended(self) -> None:
        self._under_way.count(-1)

    def failed(self) -> GatewayAnswer:
        return refusal(InternalError("The gateway had an error while processing your request."))
