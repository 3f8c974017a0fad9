"""Adapters that users bring, through the official `cloudflare` client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from cloudflare import (
    APIStatusError,
    BadRequestError,
    Cloudflare,
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
)

from openworks.app.state import open_state
from openworks.core.clock import SystemClock
from openworks.core.ids import AccountId
from openworks.services.audit import Audit
from openworks.storage.sql.documents import SqlDocumentStore
from tests.adapters import (
    TINY_CHAT,
    adapter_config,
    adapter_tensors,
    numbers,
    safetensors,
    tensor_name,
)
from tests.api.cloudflare.conftest import CloudflareFor
from tests.server import ServerProcess, wait_until

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
GOOD = {CONFIG: adapter_config(), WEIGHTS: safetensors(adapter_tensors())}


def make(cloudflare: Cloudflare, account: str, name: str = "pirate", **fields: Any) -> Any:
    return cloudflare.ai.finetunes.create(
        account_id=account, **{"model": TINY_CHAT, "name": name, **fields}
    )


def put(
    cloudflare: Cloudflare, account: str, finetune: str, file_name: str, data: bytes | None = None
) -> Any:
    return cloudflare.ai.finetunes.assets.create(
        finetune,
        account_id=account,
        file=(file_name, GOOD[file_name] if data is None else data),
        file_name=file_name,
    )


def bring(cloudflare: Cloudflare, account: str, name: str = "pirate", **fields: Any) -> Any:
    made = make(cloudflare, account, name, **fields)
    put(cloudflare, account, made.id, CONFIG)
    put(cloudflare, account, made.id, WEIGHTS)
    return made


def listed(cloudflare: Cloudflare, account: str) -> dict[str, Any]:
    """What is listed, by name: a plain list, though the client's type is one object."""
    answer = cloudflare.ai.finetunes.list(account_id=account)
    assert isinstance(answer, list)
    return {item.name: item.to_dict() for item in answer}


def errors_of(error: APIStatusError) -> list[tuple[int, str]]:
    body: Any = error.body
    assert body["success"] is False
    return [(item["code"], item["message"]) for item in body["errors"]]


def test_adapter_is_made_filled_and_listed(cloudflare: Cloudflare, account: str) -> None:
    made = make(cloudflare, account, description="Talks like a pirate.")
    assert (made.model, made.name, made.public) == (TINY_CHAT, "pirate", False)
    assert made.description == "Talks like a pirate."
    assert made.created_at.tzinfo is not None
    assert listed(cloudflare, account)["pirate"]["ready"] is False

    assert put(cloudflare, account, made.id, CONFIG).success
    assert put(cloudflare, account, made.id, WEIGHTS).success

    item = listed(cloudflare, account)["pirate"]
    assert (item["id"], item["ready"], item["rank"]) == (made.id, True, 4)
    assert item["size_bytes"] == sum(map(len, GOOD.values()))


def test_files_may_come_in_either_order_and_by_the_name(
    cloudflare: Cloudflare, account: str
) -> None:
    make(cloudflare, account)

    put(cloudflare, account, "pirate", WEIGHTS)
    put(cloudflare, account, "pirate", CONFIG)

    assert listed(cloudflare, account)["pirate"]["ready"] is True


@pytest.mark.parametrize("first", [CONFIG, WEIGHTS])
def test_second_file_that_does_not_fit_leaves_the_first(
    cloudflare: Cloudflare, account: str, first: str
) -> None:
    made = make(cloudflare, account)
    second = WEIGHTS if first == CONFIG else CONFIG
    other = {CONFIG: adapter_config(r=8), WEIGHTS: safetensors(adapter_tensors(rank=8))}
    put(cloudflare, account, made.id, first)

    with pytest.raises(BadRequestError, match="its rank is"):
        put(cloudflare, account, made.id, second, other[second])
    assert listed(cloudflare, account)["pirate"]["ready"] is False

    put(cloudflare, account, made.id, second)
    assert listed(cloudflare, account)["pirate"]["ready"] is True


def test_file_that_was_uploaded_cannot_be_changed(cloudflare: Cloudflare, account: str) -> None:
    made = make(cloudflare, account)
    put(cloudflare, account, made.id, CONFIG)

    with pytest.raises(ConflictError, match="files cannot be changed"):
        put(cloudflare, account, made.id, CONFIG, adapter_config(lora_alpha=1))


def test_refused_tensor_is_named(cloudflare: Cloudflare, account: str) -> None:
    made = make(cloudflare, account)
    name = tensor_name("self_attn.v_proj", "B", 3)
    wrong = {**adapter_tensors(), name: numbers(191, 4)}

    with pytest.raises(BadRequestError) as caught:
        put(cloudflare, account, made.id, WEIGHTS, safetensors(wrong))

    ((_, message),) = errors_of(caught.value)
    assert message == (
        f"The tensor '{name}' is refused: its shape is [191, 4], and the base model needs [192, r]."
    )


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter.safetensors", "../x", "config.pt"])
def test_other_files_are_refused_by_name(cloudflare: Cloudflare, account: str, name: str) -> None:
    made = make(cloudflare, account)

    with pytest.raises(BadRequestError, match="The files of an adapter are named") as no:
        put(cloudflare, account, made.id, name, b"x")

    assert ("pickle" in str(no.value)) == name.endswith((".bin", ".pt"))


@pytest.mark.parametrize("model", ["@openworks/tiny-embed", "@cf/meta/llama-2-7b-chat-int8"])
def test_base_that_takes_no_adapters_is_5005(
    cloudflare: Cloudflare, account: str, model: str
) -> None:
    with pytest.raises(BadRequestError) as caught:
        make(cloudflare, account, model=model)

    assert errors_of(caught.value) == [
        (5005, f"The model '{model}' does not support LoRA adapters.")
    ]


def test_base_whose_weights_are_elsewhere_says_how_to_get_them(
    cloudflare: Cloudflare, account: str
) -> None:
    made = make(cloudflare, account, model="@cf/meta-llama/llama-2-7b-chat-hf-lora")

    with pytest.raises(NotFoundError, match="openworks models pull @cf/meta-llama/llama-2"):
        put(cloudflare, account, made.id, CONFIG)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a/b", "a:b", "-a", "a" * 65, "public"])
def test_name_that_could_be_misread_is_refused(
    cloudflare: Cloudflare, account: str, name: str
) -> None:
    with pytest.raises(BadRequestError, match="'name'"):
        make(cloudflare, account, name=name)


def test_name_is_taken_once_in_an_account(cloudflare: Cloudflare, account: str) -> None:
    make(cloudflare, account)

    with pytest.raises(ConflictError, match="named 'pirate' already"):
        make(cloudflare, account)

    make(cloudflare, f"{account[:50]}-other")


def test_deleted_adapter_is_gone_with_its_bytes(
    cloudflare: Cloudflare, account: str, control_server: ServerProcess
) -> None:
    made = bring(cloudflare, account)
    blobs = control_server.settings.folder / "blobs" / "adapters" / account
    assert sum(path.is_file() for path in blobs.rglob("*")) == 2

    cloudflare.delete(f"/accounts/{account}/ai/finetunes/{made.id}", cast_to=object)

    assert listed(cloudflare, account) == {}
    assert not any(path.is_file() for path in blobs.rglob("*"))
    with pytest.raises(NotFoundError) as caught:
        put(cloudflare, account, made.id, CONFIG)
    assert errors_of(caught.value) == [(3037, f"Finetune '{made.id}' not found.")]


def test_name_of_a_deleted_adapter_is_free_and_empty(cloudflare: Cloudflare, account: str) -> None:
    first = bring(cloudflare, account)
    cloudflare.delete(f"/accounts/{account}/ai/finetunes/pirate", cast_to=object)

    second = make(cloudflare, account)

    assert second.id != first.id
    assert listed(cloudflare, account)["pirate"]["ready"] is False


def test_public_adapters_are_listed_for_everybody(cloudflare: Cloudflare, account: str) -> None:
    make(cloudflare, account, name="unfinished", public=True)
    bring(cloudflare, account, name="mine")
    bring(cloudflare, account, name="shared-b", public=True)
    bring(cloudflare, account, name="shared-a", public=True)

    def names(**query: Any) -> list[str]:
        found = cloudflare.ai.finetunes.public.list(account_id="someone-else", **query)
        assert all(item.public for item in found)
        return [item.name for item in found]

    assert names() == ["shared-a", "shared-b"]
    assert names(order_by="name", limit=1) == ["shared-a"]
    assert names(order_by="name", limit=1.0, offset=1.0) == ["shared-b"]
    for name in ("shared-a", "shared-b"):
        cloudflare.delete(f"/accounts/{account}/ai/finetunes/{name}", cast_to=object)
    assert names() == []


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "offset=-1", "orderBy=secret"])
def test_wrong_query_is_named(cloudflare: Cloudflare, account: str, query: str) -> None:
    with pytest.raises(BadRequestError, match=query.partition("=")[0]):
        cloudflare.get(f"/accounts/{account}/ai/finetunes/public?{query}", cast_to=object)


def test_another_account_neither_sees_nor_fills_nor_deletes(
    guarded_server: ServerProcess, cloudflare_for: CloudflareFor
) -> None:
    _, mine = guarded_server.make_key(account="mine", scopes=("inference", "admin"))
    _, other = guarded_server.make_key(account="other", scopes=("inference", "admin"))
    owner = cloudflare_for(guarded_server, token=mine)
    stranger = cloudflare_for(guarded_server, token=other)
    made = make(owner, "mine")

    assert listed(stranger, "other") == {}
    with pytest.raises(PermissionDeniedError):
        listed(stranger, "mine")
    with pytest.raises(NotFoundError):
        put(stranger, "other", made.id, CONFIG)
    with pytest.raises(NotFoundError):
        stranger.delete(f"/accounts/other/ai/finetunes/{made.id}", cast_to=object)
    assert set(listed(owner, "mine")) == {"pirate"}


def test_key_for_calls_alone_lists_and_changes_nothing(
    guarded_server: ServerProcess, cloudflare_for: CloudflareFor
) -> None:
    _, secret = guarded_server.make_key(account="calls")
    client = cloudflare_for(guarded_server, token=secret)

    assert listed(client, "calls") == {}
    with pytest.raises(PermissionDeniedError, match="admin"):
        make(client, "calls")
    with pytest.raises(PermissionDeniedError, match="admin"):
        put(client, "calls", "pirate", CONFIG)


def test_changes_are_in_the_audit_log(
    cloudflare: Cloudflare, account: str, control_server: ServerProcess
) -> None:
    bring(cloudflare, account)
    cloudflare.delete(f"/accounts/{account}/ai/finetunes/pirate", cast_to=object)

    async def read() -> list[tuple[str, str]]:
        async with open_state(control_server.settings) as state:
            audit = Audit(SqlDocumentStore(state.database), SystemClock())
            entries = await audit.list(AccountId(account), limit=10)
            return [(entry.action, entry.kind) for entry in entries]

    assert asyncio.run(read()) == [
        ("delete", "finetune"),
        ("update", "finetune"),
        ("create", "finetune_asset"),
        ("create", "finetune_asset"),
        ("create", "finetune"),
    ]


@pytest.fixture(scope="module")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with low limits on adapters and, apart from them, on bodies."""
    flags = {
        "finetunes.max_bytes": 100_000,
        "finetunes.per_account": 1,
        "finetunes.max_uploads": 1,
        "finetunes.max_rank": 4,
        "server.body.max_bytes": 10_000,
    }
    process = ServerProcess(flags, tmp_path_factory.mktemp("small"))
    yield process
    assert process.stop() == 0


def test_file_over_the_limit_is_refused_and_one_below_is_not(
    small_server: ServerProcess, cloudflare_for: CloudflareFor, account: str
) -> None:
    client = cloudflare_for(small_server)
    make(client, account)
    small = safetensors(adapter_tensors(layers=6, rank=1))
    assert 10_000 < len(small) < 100_000  # which is over the limit on bodies

    put(client, account, "pirate", WEIGHTS, small)
    with pytest.raises(APIStatusError, match=r"limit of 0\.1 MB") as caught:
        put(client, account, "pirate", CONFIG, b" " * 100_001)

    assert caught.value.status_code == 413


def test_form_that_says_it_is_too_large_is_not_read(
    small_server: ServerProcess, account: str
) -> None:
    answer = raw_upload(small_server, account, b"", {"content-length": "400000000"})

    assert answer[0] == 413


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"--x\r\n", "breaks off"),
        (b"hello", "broken"),
        (b'--x\r\nContent-Disposition: form-data; name="file_name"\r\n\r\nx\r\n--x--\r\n', "file"),
        (b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"y" * 5000, "'a'"),
        (b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\ny\r\n' * 9, "parts"),
        (
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\ny\r\n' * 2,
            "two files",
        ),
    ],
)
def test_broken_form_is_refused(
    small_server: ServerProcess, account: str, body: bytes, reason: str
) -> None:
    status, answer = raw_upload(small_server, account, body)

    assert status == 400
    assert reason in answer


def test_body_that_is_no_form_is_refused(small_server: ServerProcess, account: str) -> None:
    status, answer = raw_upload(small_server, account, b"{}", {"content-type": "application/json"})

    assert status == 400
    assert "multipart/form-data" in answer


def test_upload_beyond_those_at_once_is_turned_away(
    small_server: ServerProcess, account: str
) -> None:
    head = (
        f"POST /client/v4/accounts/{account}/ai/finetunes/x/finetune-assets HTTP/1.1\r\n"
        "host: localhost\r\ncontent-type: multipart/form-data; boundary=x\r\n"
        "content-length: 1000\r\n\r\n--x\r\n"
    )
    slow = HTTPConnection(*small_server.address, timeout=30)
    slow.connect()
    slow.sock.sendall(head.encode())
    answers: list[str] = []

    def is_turned_away() -> bool:
        status, answer = raw_upload(small_server, account, b"--x--\r\n")
        answers.append(answer)
        return status == 503

    try:
        wait_until(is_turned_away, what="a refusal")
    finally:
        slow.close()

    assert "1 files are being uploaded" in answers[-1]
    wait_until(lambda: not is_turned_away(), what="room for another")


def test_account_has_so_many_adapters_and_no_more(
    small_server: ServerProcess, cloudflare_for: CloudflareFor, account: str
) -> None:
    client = cloudflare_for(small_server)
    make(client, account, name="first")

    with pytest.raises(ConflictError, match="has 1 finetunes, which is the limit"):
        make(client, account, name="second")


def test_rank_over_the_limit_is_refused(
    small_server: ServerProcess, cloudflare_for: CloudflareFor, account: str
) -> None:
    client = cloudflare_for(small_server)
    make(client, account)

    with pytest.raises(BadRequestError, match=r"the rank must be 1\.\.4; got 5"):
        put(client, account, "pirate", CONFIG, adapter_config(r=5))


def raw_upload(
    server: ServerProcess, account: str, body: bytes, headers: dict[str, str] | None = None
) -> tuple[int, str]:
    connection = HTTPConnection(*server.address, timeout=30)
    try:
        connection.request(
            "POST",
            f"/client/v4/accounts/{account}/ai/finetunes/x/finetune-assets",
            body,
            {"content-type": "multipart/form-data; boundary=x", **(headers or {})},
        )
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_upload_leaves_no_file_behind(
    cloudflare: Cloudflare, account: str, control_server: ServerProcess
) -> None:
    bring(cloudflare, account)

    folder: Path = control_server.settings.folder / "uploads"
    assert list(folder.iterdir()) == []
