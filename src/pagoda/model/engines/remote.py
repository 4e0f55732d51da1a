"""Any OpenAI-compatible address: another Pagoda, a vendor, Ollama, vLLM. No process, the common tongue as it is."""

from __future__ import annotations

from pathlib import Path

from pagoda.core.errors import InvalidRequest
from pagoda.model.catalog.entry import ModelEntry, RemoteAddress
from pagoda.model.engines.contract import LaunchPlan, Memory, Profile, Room
from pagoda.model.engines.openai import OpenAIEngine


class RemoteEngine(OpenAIEngine):
    """The common tongue under the remote's own model name."""

    kind = "remote"


class Remote:
    """Connects to an address; there is nothing to launch."""

    name = "remote"
    runs = "remote"

    def memory(self, model: ModelEntry, path: Path | None, room: Room) -> Memory:
        """Nothing on this machine."""
        del model, path, room
        return Memory(weights=0, kv_cache=0, overhead=0)

    def plan(self, model: ModelEntry, path: Path | None, room: Room, key: str) -> LaunchPlan:
        """There is no process."""
        del path, room, key
        raise InvalidRequest(f"{model.id} is a remote address; it cannot be launched here.")

    async def connect(self, model: ModelEntry, url: str, key: str, room: Room) -> RemoteEngine:
        """Speak to the address with the key that its entry names."""
        if not isinstance(model.source, RemoteAddress):
            raise InvalidRequest(f"{model.id} names no remote address.")
        profile = Profile(
            generate=model.task != "embedding", embed=model.task == "embedding", score=False, tokenize=False
        )
        engine = RemoteEngine(model, url, key, room, profile)
        engine.remote_name = model.source.model
        return engine
