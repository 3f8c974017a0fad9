"""Builds the AI Gateway's control plane: gateways, credentials, providers, routes and their log."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from openworks.app.settings import Settings
from openworks.core.clock import Clock
from openworks.core.errors import InvalidRequestError
from openworks.core.ids import NewId
from openworks.core.json import JsonValue
from openworks.gateway.guard.policies import compile_policies
from openworks.gateway.providers.credentials import parse_credential
from openworks.gateway.providers.registry import Providers, custom_provider
from openworks.gateway.routing.parse import parse_graph
from openworks.ports.gateways import Gateway
from openworks.services.audit import Audit
from openworks.services.credentials import Credentials
from openworks.services.custom_providers import CustomProviders
from openworks.services.dynamic_routes import DynamicRoutes
from openworks.services.gateways import Gateways
from openworks.services.sealing import Sealer
from openworks.services.snapshots import GatewaySnapshots
from openworks.services.vault import GivenKeys, KeyFile, Vault
from openworks.storage.sql.database import Database
from openworks.storage.sql.documents import SqlDocumentStore

_CUSTOM = "custom-"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """What routes and the data path use of it."""

    gateways: Gateways
    snapshots: GatewaySnapshots
    credentials: Credentials
    custom_providers: CustomProviders
    dynamic_routes: DynamicRoutes
    audit: Audit


def make_control_plane(
    database: Database, settings: Settings, *, clock: Clock, new_id: NewId
) -> ControlPlane:
    """Put it together.

    Raises:
        SecretKeyError: The settings hold a secret key that is none.
    """
    given = settings.gateway.secret_key
    vault = Vault(GivenKeys(given) if given else KeyFile(settings.folder / "secret.key"))
    store, sealer = SqlDocumentStore(database), Sealer(vault)
    audit = Audit(store, clock)
    snapshots = GatewaySnapshots(store, sealer, audit, clock=clock)
    gateways = Gateways(store, sealer, audit, snapshots, clock=clock, check=_check_gateway)
    allow_private = settings.gateway.allow_private_providers

    def check_provider(slug: str, base_url: str, headers: Mapping[str, str]) -> None:
        custom_provider(slug, base_url, headers=headers, allow_private=allow_private)

    return ControlPlane(
        gateways=gateways,
        snapshots=snapshots,
        credentials=Credentials(
            store,
            vault,
            audit,
            gateways,
            snapshots,
            clock=clock,
            new_id=new_id,
            check=CredentialCheck(Providers()),
        ),
        custom_providers=CustomProviders(
            store, sealer, audit, snapshots, clock=clock, check=check_provider
        ),
        dynamic_routes=DynamicRoutes(
            store, audit, gateways, snapshots, clock=clock, new_id=new_id, check=_check_graph
        ),
        audit=audit,
    )


class CredentialCheck:
    """Refuses secrets for providers that nobody knows, and those that a provider cannot take."""

    def __init__(self, providers: Providers) -> None:
        self._providers = providers

    def __call__(self, slug: str, secret: str) -> None:
        """Return if the two go together.

        Raises:
            InvalidRequestError: They do not.
        """
        if slug.startswith(_CUSTOM):
            return  # the provider may come later, and takes any bearer token
        provider = self._providers.get(slug)
        if provider is None:
            near = difflib.get_close_matches(slug, self._providers.slugs(), n=1)
            hint = f"Did you mean {near[0]!r}?" if near else "Custom ones are named custom-SLUG."
            raise InvalidRequestError(
                f"There is no provider {slug!r}. {hint}", param="provider_slug"
            )
        parse_credential(provider, secret)


def _check_gateway(gateway: Gateway) -> None:
    compile_policies(gateway)


def _check_graph(elements: JsonValue) -> None:
    parse_graph(elements)
