"""The words in which a model card names the machine that trained it."""

import os
import platform
from pathlib import Path

import torch


def describe_machine() -> str:
    """Cores, processor and torch version."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return f"{os.cpu_count()} cores ({model}), torch {torch.__version__}"
