"""Says what llama.cpp finds on this machine: `python -m openworks.engines.llamacpp.probe`.

A program of its own, as a wheel that does not fit the processor ends the process that imports it.
"""

from __future__ import annotations

import json
from importlib.metadata import version

import xllamacpp


def main() -> None:
    """Print one JSON object: the version, llama.cpp's own summary, and its devices."""
    found = {
        "version": version("xllamacpp"),
        "system": xllamacpp.get_system_info(),
        "devices": [
            {"name": device["name"], "description": device["description"]}
            for device in xllamacpp.get_device_info()
        ],
    }
    print(json.dumps(found))  # noqa: T201 # its output is its purpose


if __name__ == "__main__":
    main()
