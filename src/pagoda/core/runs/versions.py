"""What a run was made with: the versions that may change its outcome, found without importing anything."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = (
    "pagoda-llm",
    "accelerate",
    "datasets",
    "lm-eval",
    "numpy",
    "onnxruntime",
    "peft",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
    "vllm",
    "xllamacpp",
)


def versions() -> dict[str, str]:
    """Python, the system, and each of the packages that is installed."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
