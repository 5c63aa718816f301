"""What a ratio depends on: the processor, the number of threads and the release of torch."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

__all__ = ["machine"]


def machine(device: str = "cpu") -> str:
    """One line that names this machine as far as ratios depend on it, such as 'AMD EPYC 7763, 2 threads, torch 2.13.0'."""
    processor = torch.cuda.get_device_name() if device == "cuda" else f"{_processor()}, {torch.get_num_threads()} threads"
    return f"{processor}, torch {torch.__version__}"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
