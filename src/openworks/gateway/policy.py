"""A gateway's snapshot with everything that can be worked out once and not per call."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

from openworks.core.errors import InvalidRequestError, NotFoundError
from openworks.gateway.providers.base import Credential, Provider
from openworks.gateway.providers.credentials import parse_credential
from openworks.gateway.providers.registry import Providers, custom_provider
from openworks.gateway.routing.graph import Graph
from openworks.gateway.routing.parse import parse_graph
from openworks.gateway.screen import Screen, make_screen
from openworks.gateway.steps import unknown_provider
from openworks.ports.gateways import Gateway, GatewayId, LogPolicy
from openworks.ports.moderation import Moderator
from openworks.ports.snapshots import ActiveRoute, GatewaySnapshot
from openworks.ports.snapshots import Credential as StoredCredential

_CUSTOM = "custom-"
_MAX_KEPT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningRoute:
    """A deployed dynamic route, parsed."""

    label: str
    salt: str
    """Splits of one route fall the same way in all of its versions."""
    graph: Graph
    limits: dict[str, Gateway] = field(default_factory=dict)
    """Element id → the limit that a rate element is, made when it is first met."""


class Policy:
    """One gateway, ready for calls."""

    __slots__ = (
        "_allow_private", "_builtin", "_credentials", "_custom", "_routes", "cache_epoch",
        "credential_limits",
        "gateway", "has_limits", "hedge_s", "logs_off", "logs_on", "screen", "snapshot",
    )  # fmt: skip

    def __init__(
        self,
        snapshot: GatewaySnapshot,
        builtin: Providers,
        *,
        moderator: Moderator | None,
        allow_private: bool,
    ) -> None:
        gateway = snapshot.gateway
        self.snapshot = snapshot
        self.gateway = gateway
        self.has_limits = bool(
            gateway.rate_limits or gateway.spend_rules or gateway.concurrency is not None
        )
        self.screen: Screen | None = make_screen(gateway, moderator)
        # What guards let pass must not come out of the cache once they would stop it.
        guards = repr((gateway.dlp, gateway.dlp_profiles, gateway.guardrails)).encode()
        digest = hashlib.sha256(guards).digest()
        self.cache_epoch = gateway.cache_epoch << 64 | int.from_bytes(digest[:8])
        self.hedge_s = None if gateway.hedge_after_ms is None else gateway.hedge_after_ms / 1000
        self.logs_off = replace(gateway.logs, collect=False)
        self.logs_on = replace(gateway.logs, collect=True)
        self._builtin = builtin
        self._allow_private = allow_private
        self._custom: dict[str, Provider] = {}
        self._credentials: dict[tuple[str, str | None], tuple[Credential, ...]] = {}
        self.credential_limits: dict[str, Gateway] = {}
        """Digest → the limit of a stored credential, which is a count of its own."""
        self._routes: dict[str, RunningRoute] = {}

    def find(self, slug: str) -> Provider:
        """Return a provider, built in or of this account.

        Raises:
            NotFoundError: There is none.
        """
        provider = self._builtin.get(slug)
        if provider is None and slug.startswith(_CUSTOM):
            provider = self._custom.get(slug) or self._add_custom(slug)
        if provider is None:
            raise unknown_provider(slug)
        return provider

    def _add_custom(self, slug: str) -> Provider | None:
        custom = self.snapshot.custom_providers.get(slug.removeprefix(_CUSTOM))
        if custom is None or not custom.enabled:
            return None
        provider = custom_provider(
            custom.slug,
            custom.base_url,
            name=custom.name,
            headers=custom.headers,
            allow_private=self._allow_private,
        )
        self._custom[slug] = provider
        return provider

    def credentials(self, provider: Provider, aliases: str | None) -> tuple[Credential, ...]:
        """Return the stored credentials to use; several aliases, with commas, are equals.

        Args:
            provider: Whose.
            aliases: `cf-aig-byok-alias`; None for the default one.

        Raises:
            InvalidRequestError: There is none with such an alias.
        """
        key = (provider.slug, aliases)
        found = self._credentials.get(key)
        if found is None:
            stored = [
                self.snapshot.credential(provider.slug, alias)
                for alias in ([None] if aliases is None else dict.fromkeys(aliases.split(",")))
            ]
            if aliases is not None and None in stored:
                raise InvalidRequestError(
                    f"No credential with the alias {aliases!r:.80} is stored for {provider.slug}.",
                    code="unknown_byok_alias",
                    param="cf-aig-byok-alias",
                )
            found = tuple(self._parsed(provider, each) for each in stored if each is not None)
            if len(self._credentials) < _MAX_KEPT:
                self._credentials[key] = found
        return found

    def _parsed(self, provider: Provider, stored: StoredCredential) -> Credential:
        credential = parse_credential(provider, stored.secret)
        if stored.rate_limit is not None:
            self.credential_limits[credential.digest] = replace(
                self.gateway,
                id=GatewayId(f"{self.gateway.id}/credential/{stored.id}"),
                rate_limits=(stored.rate_limit,),
                spend_rules=(),
                concurrency=None,
            )
        return credential

    def logs(self, collect: bool | None) -> LogPolicy:
        """Return what is kept of a call, with the caller's `cf-aig-collect-log` before all."""
        if collect is None:
            return self.gateway.logs
        return self.logs_on if collect else self.logs_off

    def route(self, name: str) -> RunningRoute:
        """Return a deployed dynamic route.

        Raises:
            NotFoundError: There is none with this name, or no version of it is deployed.
        """
        running = self._routes.get(name)
        if running is None:
            active: ActiveRoute | None = self.snapshot.routes.get(name)
            if active is None:
                raise NotFoundError(
                    f"The gateway {self.gateway.id!r} has no deployed route {name!r:.80}.",
                    code="route_not_found",
                    param="model",
                )
            running = RunningRoute(
                label=f"{active.name}@{active.version_id}",
                salt=active.id,
                graph=parse_graph(list(active.elements)),
            )
            self._routes[name] = running
        return running


class Policies:
    """The policies of the snapshots in use; at most `limit`, the oldest goes first."""

    def __init__(
        self,
        builtin: Providers,
        *,
        moderator: Moderator | None = None,
        allow_private: bool = False,
        limit: int = 4096,
    ) -> None:
        self._builtin = builtin
        self._moderator = moderator
        self._allow_private = allow_private
        self._limit = limit
        self._made: dict[tuple[str, str], Policy] = {}

    def of(self, snapshot: GatewaySnapshot) -> Policy:
        """Return a snapshot's policy, made anew only when the snapshot is another."""
        gateway = snapshot.gateway
        key = (gateway.account_id, gateway.id)
        policy = self._made.get(key)
        if policy is None or policy.snapshot is not snapshot:
            policy = Policy(
                snapshot,
                self._builtin,
                moderator=self._moderator,
                allow_private=self._allow_private,
            )
            if len(self._made) >= self._limit:
                self._made.pop(next(iter(self._made)))
            self._made[key] = policy
        return policy
