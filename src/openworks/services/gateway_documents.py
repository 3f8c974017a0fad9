"""Makes of a gateway's document what the data path follows."""

from __future__ import annotations

from collections.abc import Iterator

from openworks.core.json import JsonObject
from openworks.ports.documents import Document
from openworks.ports.gateways import (
    Alert,
    Concurrency,
    DlpPolicy,
    DlpProfile,
    Gateway,
    GatewayId,
    GuardAction,
    Guardrails,
    LogPolicy,
    OtelExport,
    RateLimit,
    RetryPolicy,
    Selector,
    SpendRule,
)
from openworks.services.sealing import MASK
from openworks.wire.cloudflare import gateway as wire

EPOCH = "cache_epoch"
"""Stands in the document beside its owner's fields."""


def fields_of(body: JsonObject) -> JsonObject:
    """Return the fields of the owner alone."""
    return {key: value for key, value in body.items() if key != EPOCH}


def to_gateway(document: Document) -> Gateway:
    """Convert a document whose secrets are open."""
    shape = wire.read_gateway(fields_of(document.body))
    epoch = document.body.get(EPOCH)
    return Gateway(
        account_id=document.account_id,
        id=GatewayId(document.id),
        created_at_s=document.created_at_s,
        modified_at_s=document.modified_at_s,
        authentication=shape.authentication,
        byok_only=shape.byok_only,
        cache_ttl_s=shape.cache_ttl or 0,
        semantic_threshold=_semantic_threshold(shape.semantic_cache),
        cache_epoch=epoch if isinstance(epoch, int) else 0,
        rate_limits=tuple(_rate_limits(shape)),
        spend_rules=tuple(_spend_rules(shape.spend_limits)),
        concurrency=_concurrency(shape.concurrency),
        retry=RetryPolicy(
            max_attempts=shape.retry_max_attempts or 1,
            delay_ms=shape.retry_delay or 0,
            backoff=shape.retry_backoff or "exponential",
        ),
        hedge_after_ms=shape.hedge_after_ms,
        guardrails=_guardrails(shape.guardrails),
        dlp=tuple(_dlp_policies(shape.dlp)),
        dlp_profiles=tuple(_dlp_profiles(shape.dlp)),
        logs=LogPolicy(
            collect=shape.collect_logs,
            payloads=shape.collect_log_payloads,
            limit=shape.log_management,
            strategy=shape.log_management_strategy or "DELETE_OLDEST",
        ),
        # What cannot be decrypted any more has nowhere to go, or no right to.
        otel=tuple(_otel(item) for item in shape.otel or () if not _is_unreadable(item)),
        alerts=tuple(_alert(item) for item in shape.alerts if MASK not in item.url),
    )


def _semantic_threshold(shape: wire.SemanticCache | None) -> float | None:
    return shape.threshold if shape is not None and shape.enabled else None


def _rate_limits(shape: wire.GatewayShape) -> Iterator[RateLimit]:
    if shape.rate_limiting_limit and shape.rate_limiting_interval:
        yield RateLimit(
            limit=shape.rate_limiting_limit,
            interval_s=shape.rate_limiting_interval,
            technique=shape.rate_limiting_technique or "fixed",
        )
    for limit in shape.limits:
        yield RateLimit(
            limit=limit.limit,
            interval_s=limit.interval,
            technique=limit.technique,
            per=limit.per,
        )


def _spend_rules(shape: wire.SpendLimits | None) -> Iterator[SpendRule]:
    if shape is None or not shape.enabled:
        return
    for rule in shape.rules:
        if rule.enabled:
            yield SpendRule(
                id=rule.id or "",
                limit=rule.limit,
                unit=rule.limit_type,
                window_s=rule.window,
                technique=rule.technique,
                by=dict(_selectors(rule)),
            )


def _selectors(rule: wire.SpendRule) -> Iterator[tuple[str, Selector]]:
    given = {"model": rule.model, "provider": rule.provider, "key": rule.key}
    given.update({f"metadata.{name}": selector for name, selector in rule.metadata.items()})
    for name, selector in given.items():
        if selector is not None:
            yield name, Selector(mode=selector.mode, values=tuple(selector.values))


def _concurrency(shape: wire.Concurrency | None) -> Concurrency | None:
    if shape is None:
        return None
    return Concurrency(
        limit=shape.limit,
        per_key_limit=shape.per_key_limit,
        queue=shape.queue,
        wait_s=shape.wait_s,
        weights=shape.weights,
    )


def _guardrails(shape: wire.Guardrails | None) -> Guardrails:
    if shape is None:
        return Guardrails()
    prompt: dict[str, GuardAction] = {name: shape.prompt[name] for name in shape.prompt}
    response: dict[str, GuardAction] = {name: shape.response[name] for name in shape.response}
    return Guardrails(prompt=prompt, response=response)


def _dlp_policies(shape: wire.Dlp | None) -> Iterator[DlpPolicy]:
    if shape is None or not shape.enabled:
        return
    if shape.action is not None:  # the older shape: one action on both sides
        yield DlpPolicy(id="default", action=shape.action, profiles=tuple(shape.profiles or ()))
    for policy in shape.policies or ():
        if policy.enabled:
            yield DlpPolicy(
                id=policy.id,
                action=policy.action,
                checks=frozenset(policy.check),
                profiles=tuple(policy.profiles),
            )


def _dlp_profiles(shape: wire.Dlp | None) -> Iterator[DlpProfile]:
    for profile in shape.custom_profiles if shape is not None and shape.enabled else ():
        yield DlpProfile(
            id=profile.id,
            patterns=dict(profile.patterns),
            words={name: tuple(words) for name, words in profile.words.items()},
        )


def _is_unreadable(shape: wire.Otel) -> bool:
    return MASK in (shape.authorization, *shape.headers.values())


def _otel(shape: wire.Otel) -> OtelExport:
    return OtelExport(
        url=shape.url,
        headers=dict(shape.headers),
        authorization=shape.authorization,
        content_type=shape.content_type,
    )


def _alert(shape: wire.Alert) -> Alert:
    return Alert(
        id=shape.id,
        figure=shape.figure,
        threshold=shape.threshold,
        window_s=shape.window,
        url=shape.url,
    )
