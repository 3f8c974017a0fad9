"""Every KeyStore keeps keys alike."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openworks.core.errors import ConflictError
from openworks.core.ids import AccountId, KeyId
from openworks.ports.keys import ApiKey, KeyStore

ACME = AccountId("acct-acme")
KEY = ApiKey(
    id=KeyId("key-1"),
    account_id=ACME,
    name="laptop",
    hash="hash-1",
    hint="sk-ow…xyz",
    scopes=frozenset({"inference"}),
    allowed_models=None,
    created_at_s=1000.5,
)


def a_key(number: int, *, account_id: AccountId = ACME, created_at_s: float = 1000.5) -> ApiKey:
    return replace(
        KEY,
        id=KeyId(f"key-{number}"),
        hash=f"hash-{number}",
        account_id=account_id,
        created_at_s=created_at_s,
    )


async def test_key_comes_back_as_it_was_kept(key_store: KeyStore) -> None:
    key = replace(
        KEY,
        scopes=frozenset({"inference", "admin"}),
        allowed_models=frozenset({"gpt-4o-mini", "@cf/meta/llama"}),
        expires_at_s=2000.25,
    )

    await key_store.insert(key)

    assert await key_store.get_by_hash("hash-1") == key


async def test_key_for_every_model_differs_from_a_key_for_none(key_store: KeyStore) -> None:
    await key_store.insert(a_key(1))
    await key_store.insert(replace(a_key(2), allowed_models=frozenset()))

    every, none = await key_store.list()

    assert every.allowed_models is None
    assert none.allowed_models == frozenset()


async def test_unknown_hash_finds_nothing(key_store: KeyStore) -> None:
    await key_store.insert(KEY)

    assert await key_store.get_by_hash("hash-2") is None


@pytest.mark.parametrize("twin", [replace(KEY, hash="other"), replace(KEY, id=KeyId("other"))])
async def test_second_key_with_the_same_id_or_hash_is_refused(
    key_store: KeyStore, twin: ApiKey
) -> None:
    await key_store.insert(KEY)

    with pytest.raises(ConflictError, match=f"'{twin.id}'"):
        await key_store.insert(twin)

    assert await key_store.list() == [KEY]


async def test_keys_are_listed_oldest_first(key_store: KeyStore) -> None:
    newer, older = a_key(1, created_at_s=20.0), a_key(2, created_at_s=10.0)
    await key_store.insert(newer)
    await key_store.insert(older)

    assert await key_store.list() == [older, newer]


async def test_keys_of_one_account_leave_the_others_out(key_store: KeyStore) -> None:
    mine, theirs = a_key(1), a_key(2, account_id=AccountId("acct-other"))
    await key_store.insert(mine)
    await key_store.insert(theirs)

    assert await key_store.list(account_id=ACME) == [mine]
    assert await key_store.list(account_id=AccountId("acct-nobody")) == []


async def test_revoked_key_is_still_found_and_says_when(key_store: KeyStore) -> None:
    await key_store.insert(KEY)

    assert await key_store.revoke(KEY.id, at_s=1500.0)

    assert await key_store.get_by_hash(KEY.hash) == replace(KEY, revoked_at_s=1500.0)


async def test_revoking_twice_keeps_the_first_time(key_store: KeyStore) -> None:
    await key_store.insert(KEY)
    await key_store.revoke(KEY.id, at_s=1500.0)

    assert await key_store.revoke(KEY.id, at_s=1600.0)

    assert await key_store.get_by_hash(KEY.hash) == replace(KEY, revoked_at_s=1500.0)


async def test_revoking_an_unknown_key_says_so(key_store: KeyStore) -> None:
    assert not await key_store.revoke(KeyId("key-9"), at_s=1500.0)


async def test_revoked_keys_do_not_count_and_expired_ones_do(key_store: KeyStore) -> None:
    await key_store.insert(a_key(1))
    await key_store.insert(a_key(2))
    await key_store.insert(replace(a_key(3), expires_at_s=2000.0))
    await key_store.revoke(KeyId("key-2"), at_s=1500.0)

    assert await key_store.count_unrevoked() == 2
