"""Route graphs for tests, as JSON."""

from __future__ import annotations

from typing import Any


def to(target: str) -> dict[str, str]:
    return {"elementId": target}


def start(target: str) -> Any:
    return {"id": "start", "type": "start", "outputs": {"next": to(target)}}


def end(name: str = "end") -> Any:
    return {"id": name, "type": "end"}


def model(name: str, *, fallback: str | None = None, **properties: Any) -> Any:
    outputs = {"success": to("end")} | ({"fallback": to(fallback)} if fallback else {})
    return {
        "id": name,
        "type": "model",
        "properties": {"provider": "openai", "model": f"gpt-{name}", **properties},
        "outputs": outputs,
    }


def conditional(name: str, condition: Any, true: str, false: str) -> Any:
    return {
        "id": name,
        "type": "conditional",
        "properties": {"conditions": condition},
        "outputs": {"true": to(true), "false": to(false)},
    }


def percentage(name: str, **outputs: str) -> Any:
    return {
        "id": name,
        "type": "percentage",
        "outputs": {share: to(target) for share, target in outputs.items()},
    }


def rate(name: str, success: str, fallback: str | None = None, **properties: Any) -> Any:
    outputs = {"success": to(success)} | ({"fallback": to(fallback)} if fallback else {})
    return {
        "id": name,
        "type": "rate",
        "properties": {
            "limitType": "count",
            "key": "metadata.user_id",
            "limit": 10,
            "window": 60,
            **properties,
        },
        "outputs": outputs,
    }
