from __future__ import annotations

import asyncio

import pytest

from openworks.core.errors import AuthenticationError, ModelUnavailableError, NotFoundError
from openworks.core.ids import AccountId, KeyId, new_id
from openworks.ports.keys import ApiKey
from openworks.services.keys import AccessConfig, Keys, hash_secret
from tests.fakes import CountingIds, FakeClock, MemoryKeyStore


class BreakableStore(MemoryKeyStore):
    """A key store that can be made to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = False

    async def get_by_hash(self, key_hash: str) -> ApiKey | None:
        self._check()
        return await super().get_by_hash(key_hash)

    async def count_unrevoked(self) -> int:
        self._check()
        return await super().count_unrevoked()

    def _check(self) -> None:
        if self.broken:
            raise ModelUnavailableError("The database is gone.")


@pytest.fixture
def store() -> BreakableStore:
    return BreakableStore()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def keys(store: BreakableStore, clock: FakeClock) -> Keys:
    return Keys(store, AccessConfig(), clock=clock, new_id=CountingIds())


async def test_server_without_keys_lets_everybody_in_as_the_default_account(keys: Keys) -> None:
    assert (await keys.authenticate(None)).account_id == "default"


async def test_first_key_closes_the_server(keys: Keys, clock: FakeClock) -> None:
    await keys.authenticate(None)
    _, secret = await keys.create(name="me", account_id=AccountId("acme"))
    clock.advance(3)
    with pytest.raises(AuthenticationError, match="didn't provide"):
        await keys.authenticate(None)
    assert (await keys.authenticate(secret)).account_id == "acme"


async def test_secret_is_kept_as_a_hash_alone(store: BreakableStore, clock: FakeClock) -> None:
    keys = Keys(store, AccessConfig(), clock=clock, new_id=new_id)
    key, secret = await keys.create(name="me")
    assert key.hash == hash_secret(secret)
    (kept,) = await store.list()
    assert secret not in repr(kept)


async def test_revoked_key_stops_working_within_seconds(keys: Keys, clock: FakeClock) -> None:
    key, secret = await keys.create(name="me")
    await keys.create(name="another")
    await keys.authenticate(secret)
    await keys.revoke(key.id)
    clock.advance(3)
    with pytest.raises(AuthenticationError, match="Incorrect API key"):
        await keys.authenticate(secret)


async def test_expired_key_stops_working(keys: Keys, clock: FakeClock) -> None:
    _, secret = await keys.create(name="me", expires_at_s=clock.now_s() + 60)
    await keys.create(name="another")
    await keys.authenticate(secret)
    clock.advance(61)
    with pytest.raises(AuthenticationError):
        await keys.authenticate(secret)


async def test_server_stays_closed_when_its_last_key_is_revoked(
    keys: Keys, clock: FakeClock
) -> None:
    key, secret = await keys.create(name="me")
    await keys.authenticate(secret)
    await keys.revoke(key.id)
    clock.advance(3600)
    with pytest.raises(AuthenticationError):
        await keys.authenticate(None)


async def test_server_that_starts_after_the_last_key_expired_is_closed(
    store: BreakableStore, clock: FakeClock
) -> None:
    before = Keys(store, AccessConfig(), clock=clock, new_id=CountingIds())
    await before.create(name="me", expires_at_s=clock.now_s() + 60)
    clock.advance(61)
    after = Keys(store, AccessConfig(), clock=clock, new_id=CountingIds())
    with pytest.raises(AuthenticationError):
        await after.authenticate(None)


async def test_message_about_a_wrong_key_does_not_repeat_it(keys: Keys) -> None:
    await keys.create(name="me")
    with pytest.raises(AuthenticationError) as caught:
        await keys.authenticate("sk-ow-somebody-elses-secret")
    assert "somebody" not in caught.value.message


async def test_access_token_of_the_settings_opens_everything(
    store: BreakableStore, clock: FakeClock
) -> None:
    config = AccessConfig(token="open-sesame")
    keys = Keys(store, config, clock=clock, new_id=CountingIds())
    assert (await keys.authenticate("open-sesame")).scopes == {"inference", "admin"}
    with pytest.raises(AuthenticationError):
        await keys.authenticate("open-says-me")
    assert "sesame" not in repr(config)


async def test_known_keys_work_while_the_database_is_gone(
    keys: Keys, store: BreakableStore, clock: FakeClock
) -> None:
    _, secret = await keys.create(name="me")
    await keys.authenticate(secret)
    store.broken = True
    clock.advance(60)
    assert (await keys.authenticate(secret)).key_id is not None
    with pytest.raises(ModelUnavailableError):
        await keys.authenticate("sk-ow-never-seen")
    clock.advance(3600)
    with pytest.raises(ModelUnavailableError):
        await keys.authenticate(secret)


async def test_open_server_stays_open_while_the_database_is_gone_for_a_while(
    keys: Keys, store: BreakableStore, clock: FakeClock
) -> None:
    store.broken = True
    with pytest.raises(ModelUnavailableError):
        await keys.authenticate(None)  # it was never seen whether there are keys
    store.broken = False
    await keys.authenticate(None)
    store.broken = True
    clock.advance(60)
    assert (await keys.authenticate(None)).key_id is None
    clock.advance(3600)
    with pytest.raises(ModelUnavailableError):
        await keys.authenticate(None)


async def test_revoking_an_unknown_key_names_it(keys: Keys) -> None:
    with pytest.raises(NotFoundError, match="'key_nobody'"):
        await keys.revoke(KeyId("key_nobody"))


# What is known without asking the database.


async def test_nothing_is_known_at_the_start(keys: Keys) -> None:
    assert keys.peek(None) is None
    assert keys.peek("sk-ow-1") is None
    assert not keys.is_known_guarded


async def test_open_server_is_known_to_be_open_for_seconds(keys: Keys, clock: FakeClock) -> None:
    await keys.authenticate(None)
    found = keys.peek(None)
    assert found is not None
    assert found.account_id == "default"
    clock.advance(2)
    assert keys.peek(None) is None


async def test_key_that_was_seen_is_known_for_seconds(keys: Keys, clock: FakeClock) -> None:
    key, secret = await keys.create(name="me", account_id=AccountId("acme"))
    assert keys.peek(secret) is None
    await keys.authenticate(secret)
    assert keys.is_known_guarded
    found = keys.peek(secret)
    assert found is not None
    assert (found.account_id, found.key_id, found.scopes) == ("acme", key.id, key.scopes)
    assert keys.peek(None) is None
    assert keys.peek("") is None
    assert keys.peek(secret + "x") is None
    clock.advance(2)
    assert keys.peek(secret) is None


async def test_key_that_is_unknown_is_not_peeked_as_known(keys: Keys) -> None:
    await keys.create(name="me")
    with pytest.raises(AuthenticationError):
        await keys.authenticate("sk-ow-nobody")
    assert keys.peek("sk-ow-nobody") is None


async def test_revoked_key_is_forgotten_at_once(keys: Keys) -> None:
    key, secret = await keys.create(name="me")
    await keys.authenticate(secret)
    await keys.revoke(key.id)
    assert keys.peek(secret) is None


async def test_key_that_expires_is_not_known_any_more(keys: Keys, clock: FakeClock) -> None:
    _, secret = await keys.create(name="me", expires_at_s=clock.now_s() + 1)
    await keys.authenticate(secret)
    clock.advance(1.5)
    assert keys.peek(secret) is None


def test_access_token_is_known_without_the_database(
    store: BreakableStore, clock: FakeClock
) -> None:
    store.broken = True
    keys = Keys(store, AccessConfig(token="open-sesame"), clock=clock, new_id=CountingIds())
    assert keys.is_known_guarded
    assert keys.token == b"open-sesame"
    found = keys.peek("open-sesame")
    assert found is not None
    assert found.scopes == {"inference", "admin"}
    assert keys.peek("open-says-me") is None
    assert keys.peek(None) is None


async def test_server_that_was_guarded_stays_known_as_such(keys: Keys, clock: FakeClock) -> None:
    key, secret = await keys.create(name="me")
    await keys.authenticate(secret)
    await keys.revoke(key.id)
    clock.advance(3600)
    assert keys.is_known_guarded
    assert keys.peek(None) is None


async def test_many_who_show_one_key_at_once_ask_the_database_once(
    store: BreakableStore, clock: FakeClock
) -> None:
    keys = Keys(store, AccessConfig(), clock=clock, new_id=CountingIds())
    _, secret = await keys.create(name="laptop")
    await keys.is_guarded()
    asked = 0
    look_up = store.get_by_hash

    async def counted(key_hash: str) -> ApiKey | None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return await look_up(key_hash)

    store.get_by_hash = counted  # type: ignore[method-assign]  # counts
    await asyncio.gather(*(keys.authenticate(secret) for _ in range(20)))
    assert asked == 1


async def test_busy_key_is_read_again_before_it_is_too_old(
    store: BreakableStore, clock: FakeClock
) -> None:
    keys = Keys(store, AccessConfig(), clock=clock, new_id=CountingIds())
    key, secret = await keys.create(name="laptop")
    await keys.authenticate(secret)
    for _ in range(5):
        clock.advance(1.5)
        assert keys.peek(secret) is not None
        await asyncio.sleep(0.01)  # meanwhile it is read again
    await store.revoke(key.id, at_s=clock.now_s())  # by another process
    clock.advance(1.5)
    assert keys.peek(secret) is not None
    await asyncio.sleep(0.01)
    assert keys.peek(secret) is None
    await keys.close()
