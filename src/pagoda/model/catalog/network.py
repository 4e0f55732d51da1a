"""How downloads reach the outside: hub address, token, proxy, certificate authority, or not at all. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field

from pagoda.core.errors import Unavailable
from pagoda.core.setting_values import Secret
from pagoda.core.settings import Models

OFFLINE = "offline"
"""Code of the error of a download that settings forbid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The part of the settings that downloads need."""

    hub_url: str = "https://huggingface.co"
    hub_token: Secret = field(default_factory=lambda: Secret(""))
    proxy: str = ""
    """Empty means the environment's own (``HTTPS_PROXY``, ``NO_PROXY``)."""
    ca_bundle: str = ""
    offline: bool = False

    @classmethod
    def of(cls, settings: Models) -> Network:
        """The network that the settings ask for."""
        return cls(
            hub_url=settings.hub_url.rstrip("/"),
            hub_token=settings.hub_token,
            proxy=settings.proxy,
            ca_bundle=settings.ca_bundle,
            offline=settings.offline,
        )

    def refuse_offline(self, what: str) -> None:
        """``Unavailable`` when the network may not be touched for ``what``."""
        if self.offline:
            raise Unavailable(
                f"{what} is not on this machine and models.offline forbids fetching it; turn that off, or bring its "
                "files by hand with `pagoda models import`.",
                code=OFFLINE,
                retryable=False,
            )
