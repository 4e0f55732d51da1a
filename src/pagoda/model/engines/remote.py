"""Any OpenAI-compatible address: another Pagoda, a vendor, Ollama, vLLM. No process, the common tongue as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pagoda.core.errors import InvalidRequest, ModelError, ModelTimeout, Unavailable
from pagoda.model.catalog.entry import ModelEntry, RemoteAddress
from pagoda.model.engines.contract import Health, LaunchPlan, Memory, Profile, Room
from pagoda.model.engines.exposition import llamacpp_health, vllm_health
from pagoda.model.engines.openai import STOPPED, UNREACHABLE, OpenAIEngine


class RemoteEngine(OpenAIEngine):
    """The common tongue under the remote's own model name."""

    kind = "remote"

    def __init__(self, model: ModelEntry, url: str, key: str, room: Room, profile: Profile) -> None:
        super().__init__(model, url, key, room, profile)
        self._speaks: Literal["vllm", "llamacpp", "pagoda", "", "unknown"] = "unknown"
        """Whose metrics the address serves; empty: nobody's that are known."""

    async def health(self) -> Health:
        """What the address tells of its work, as vLLM and llama.cpp's server do. Another Pagoda says whether it takes
        requests; of others it is only known whether they answer."""
        if self._speaks:
            try:
                found = await self.read_metrics()
            except ModelError as error:
                if error.code in (UNREACHABLE, STOPPED) or isinstance(error, ModelTimeout):
                    raise
                found = {}
            self._speaks = _speaker(found)
            if self._speaks == "vllm":
                return vllm_health(found)
            if self._speaks == "llamacpp":
                return llamacpp_health(found)
        if self._speaks == "pagoda":
            return replace(_SILENT, alive=await self._takes_requests())
        return await super().health()

    async def _takes_requests(self) -> bool:
        try:
            await self.request_json("GET", self.url.removesuffix("/v1") + "/ready")
        except Unavailable as error:
            if error.code in (UNREACHABLE, STOPPED):
                raise
            return False
        return True


_SILENT = Health(alive=True, running=0, waiting=0, progress=0, counted=False)


def _speaker(found: Mapping[str, float]) -> Literal["vllm", "llamacpp", "pagoda", ""]:
    """Whose metrics these are."""
    if any(name.startswith("vllm:") for name in found):
        return "vllm"
    if "llamacpp:requests_processing" in found:
        return "llamacpp"
    return "pagoda" if "pagoda_cache_entries" in found else ""


class Remote:
    """Connects to an address; there is nothing to launch."""

    name = "remote"
    runs = "remote"
    parallel = 1024

    def memory(self, model: ModelEntry, path: Path | None, room: Room) -> Memory:
        """Nothing on this machine."""
        del model, path, room
        return Memory(weights=0, kv_cache=0, overhead=0)

    def capacity(self, model: ModelEntry, room: Room) -> int:
        """How many it computes is for the address to say; this only bounds the connections."""
        del model, room
        return self.parallel

    def plan(self, model: ModelEntry, path: Path | None, room: Room, key: str) -> LaunchPlan:
        """There is no process."""
        del path, room, key
        raise InvalidRequest(f"{model.id} is a remote address; it cannot be launched here.")

    async def connect(self, model: ModelEntry, url: str, key: str, room: Room) -> RemoteEngine:
        """Speak to the address with the key that its entry names."""
        if not isinstance(model.source, RemoteAddress):
            raise InvalidRequest(f"{model.id} names no remote address.")
        profile = Profile(
            generate=model.task != "embedding",
            embed=model.task == "embedding",
            score=False,
            tokenize=False,
            tool_calls=model.calls_tools,
        )
        engine = RemoteEngine(model, url, key, room, profile)
        engine.remote_name = model.source.model
        return engine
