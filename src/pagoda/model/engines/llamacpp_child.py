"""The llama.cpp engine process: xllamacpp's native HTTP server with one model, until the parent is gone.

Started by ``pagoda.service.supervisor`` as ``python -m pagoda.model.engines.llamacpp_child``; configuration arrives as
one JSON line on standard input (see ``LlamaCpp.plan``).
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from pagoda.model.engines.lifeline import read_config, report


def main() -> int:
    """Load the model, report the address, and wait."""
    config = read_config()
    import xllamacpp  # noqa: PLC0415  (100 MB of native code: after the parent is known to be there)

    try:
        server = xllamacpp.Server(_parameters(xllamacpp, config))
    except Exception as error:  # noqa: BLE001  (whatever native code raises must reach the parent as a sentence)
        report(error=str(error) or type(error).__name__)
        return 1
    report(url=server.listening_address)
    threading.Event().wait()
    return 0


def _parameters(xllamacpp: Any, config: dict[str, Any]) -> Any:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = config["path"]
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.api_keys = [config["key"]]
    parameters.n_parallel = config["parallel"]
    parameters.n_ctx = config["context"] * config["parallel"]
    parameters.cpuparams.n_threads = config["threads"]
    parameters.cpuparams_batch.n_threads = config["threads"]
    parameters.n_threads_http = config["parallel"] * 4 + 8  # a stream holds one of them for as long as it lasts
    parameters.cache_ram_mib = config["prompt_cache_mib"]
    kinds = {"f16": xllamacpp.ggml_type.GGML_TYPE_F16, "q8_0": xllamacpp.ggml_type.GGML_TYPE_Q8_0}
    parameters.cache_type_k = parameters.cache_type_v = kinds[config["kv_type"]]
    parameters.fit_params = False  # sizes are chosen and counted by Pagoda, not adjusted behind its back
    parameters.prefill_assistant = False  # a trailing assistant message is a turn; continuing it is asked for
    parameters.ui = False
    parameters.endpoint_metrics = True
    parameters.endpoint_slots = True
    parameters.sse_ping_interval = -1
    parameters.verbosity = 2  # warnings and errors: its log of every request would grow without bound
    if config["adapters"]:
        parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 1.0) for path in config["adapters"]]
        parameters.lora_init_without_apply = True  # each request names the one that it wants
    if config["embedding"]:
        parameters.embedding = True
        parameters.n_batch = parameters.n_ubatch = config["batch"]
    return parameters


if __name__ == "__main__":
    sys.exit(main())
