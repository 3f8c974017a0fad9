"""Says whether OpenVINO can compute models here; imports it only when asked."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec


def openvino_fault() -> str | None:
    """Return why OpenVINO cannot be used here; None if it can."""
    if find_spec("openvino") is None:
        return "it is not installed (openworks[openvino])"
    try:
        fault: str | None = import_module(f"{__package__}.self_test").attention_fault()
    except (ImportError, OSError) as exc:
        return f"it does not start here: {exc}"
    return fault
