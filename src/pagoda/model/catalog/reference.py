"""How people name models that the catalog does not list: a Hugging Face id, or a path on this machine.

``org/name``, ``org/name@revision``, ``org/name:file.gguf``, ``org/name:Q4_K_M``, ``org/name@revision:file.gguf``;
a path begins with ``/``, ``./``, ``../`` or ``~``, or ends with ``.gguf``.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from pagoda.core.errors import InvalidRequest

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@-]{0,127}")
_REPOSITORY = re.compile(
    r"(?P<repository>[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95})"
    r"(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]*))?(?::(?P<file>[^:\\]+))?"
)
_WINDOWS_NAMES = {"con", "prn", "aux", "nul"}


@dataclass(frozen=True, slots=True)
class HubReference:
    """A repository on a Hugging Face hub, perhaps at a revision, perhaps one file of it."""

    repository: str
    revision: str = "main"
    file: str = ""

    def __str__(self) -> str:
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return self.repository + revision + (f":{self.file}" if self.file else "")

    @property
    def id(self) -> str:
        """A name under which the files can be kept."""
        return make_id(str(self).replace("/", "--").replace(":", "--"))


def check_id(name: str) -> str:
    """``name`` if it can name a model and its folder on any file system; ``InvalidRequest`` otherwise."""
    if not _ID.fullmatch(name) or ".." in name or name.endswith(".") or name.lower() in _WINDOWS_NAMES:
        raise InvalidRequest(
            f"{name!r} cannot name a model; use letters, digits and . _ - + @, beginning with a letter or digit.",
            param="model",
        )
    return name


def make_id(text: str) -> str:
    """A valid id that resembles ``text``."""
    name = re.sub(r"\.{2,}", ".", re.sub(r"[^A-Za-z0-9._+@-]", "-", text)).strip(".-_+@")[:128].rstrip(".")
    return check_id(f"model-{name or 0}" if name.lower() in {"", *_WINDOWS_NAMES} else name)


def parse_reference(text: str) -> HubReference | Path | None:
    """What ``text`` refers to outside the catalog; ``None`` when it has neither form."""
    if "\0" in text:  # no path has it
        return None
    if text.startswith(("/", "./", "../", "~", ".\\")) or Path(text).is_absolute():
        return Path(os.path.expanduser(text)).absolute()
    if text.lower().endswith(".gguf") and ":" not in text:
        return Path(text).absolute()
    if (match := _REPOSITORY.fullmatch(text)) and ".." not in text:
        return HubReference(match["repository"], match["revision"] or "main", match["file"] or "")
    return None


def path_id(path: Path) -> str:
    """A name for the model at ``path``: its own, and a few digits that tell it from others of that name."""
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:6]
    return make_id(f"{make_id(path.stem if path.suffix == '.gguf' else path.name)[:100]}-{digest}")
