"""From the name that a caller uses to the deployment that answers it: of all, or of its account.

@openworks/tiny-chat               a model of the catalogue, or any other name of it
@openworks/tiny-chat+pirate        with the account's adapter of that name, or of that id
ft:tiny-chat:acct:pirate:1a2B3c4D  the same, as OpenAI calls fine-tuned models
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from openworks.core.errors import InvalidRequestError, ModelNotFoundError
from openworks.core.ids import AccountId
from openworks.ports.catalog import Deployment
from openworks.services.adapter_files import AdapterFiles
from openworks.services.catalog import MAX_NAME_CHARS, Catalog
from openworks.services.finetune_documents import Finetune
from openworks.services.known_finetunes import KnownFinetunes

OPENAI_PREFIX: Final = "ft:"
_PLUS: Final = "+"


class Deployments:
    """Resolves names for those who call. Implements `ports.catalog.Models`."""

    def __init__(self, catalog: Catalog, known: KnownFinetunes, files: AdapterFiles) -> None:
        self._catalog = catalog
        self._known = known
        self._files = files

    def canonical(self, name: str) -> str:
        base, reference = split_name(name, self._catalog)
        return self._catalog.canonical(base) + (_PLUS + reference if reference else "")

    def resolve(self, name: str) -> Deployment:
        """Return what `name` stands for; of an adapter, its base model, whose price it has."""
        return self._catalog.resolve(split_name(name, self._catalog)[0])

    async def deploy(self, name: str, account: AccountId) -> Deployment:
        base, reference = split_name(name, self._catalog)
        is_adapter = bool(reference) or name.startswith(OPENAI_PREFIX)
        if not is_adapter or self._catalog.find(name) is not None:
            return self._catalog.resolve(name)  # without the database, as nearly all calls
        finetune = await self.find(name, account)
        if finetune is None:
            if not reference or self._catalog.find(base) is not None:
                raise no_such_model(name)
            raise self._catalog.unknown(base)
        if not finetune.is_ready:
            raise InvalidRequestError(
                f"Finetune {finetune.name!r} is missing required files "
                "(adapter_config.json and adapter_model.safetensors).",
                code="finetune_incomplete",
                param="model",
            )
        return self._catalog.deploy(finetune.model, await self._files.bring(finetune))

    async def adapters(self, account: AccountId) -> Sequence[Finetune]:
        """Return an account's own adapters that can answer now, newest first."""
        return [
            own
            for own in await self._known.of(account)
            if own.is_ready and self._catalog.find(own.model) is not None
        ]

    async def find(self, name: str, account: AccountId) -> Finetune | None:
        """Return the adapter that `name` asks for, if the account may use it; ready or not."""
        base, reference = split_name(name, self._catalog)
        if reference:
            return await self._known.find(account, self._catalog.canonical(base), reference)
        if name.startswith(OPENAI_PREFIX) and len(name) <= MAX_NAME_CHARS:
            return await self._known.find_openai(account, name)
        return None


def split_name(name: str, catalog: Catalog) -> tuple[str, str]:
    """Return the base model that a name asks for, and its adapter, which is empty without one.

    A plus sign may be part of a model's own name: what the catalogue knows is not split.
    """
    base, plus, reference = name.rpartition(_PLUS)
    if not plus or not base or not reference or len(name) > MAX_NAME_CHARS:
        return name, ""
    return (name, "") if catalog.find(name) is not None else (base, reference)


def no_such_model(name: str) -> ModelNotFoundError:
    """Make the error for an adapter that the caller does not have, whoever else may have it."""
    return ModelNotFoundError(
        f"The model {name[:MAX_NAME_CHARS]!r} does not exist or you do not have access to it.",
        param="model",
    )
