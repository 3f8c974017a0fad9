"""Keywords of JSON Schema that mean the same to every engine's grammar."""

from __future__ import annotations

ANNOTATIONS = frozenset(
    {
        "$comment",
        "$defs",
        "$id",
        "$schema",
        "default",
        "definitions",
        "deprecated",
        "description",
        "discriminator",
        "examples",
        "readOnly",
        "title",
        "writeOnly",
    }
)
"""What restricts nothing by itself."""
