"""Random requests from the OpenAPI document: never a 5xx of our making, never an answer outside its schema."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pagoda.model.catalog.entry_file import write_entry
from tests.services import fake_model, process

# A scripted model that is made to call a tool writes what is no call: that is the model's failure, and told as 502.
CONFIG = "".join(
    f'[[operations]]\ninclude-name = "POST {path}"\n'
    'checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 502]\n'
    for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses")
)
MODELS = (fake_model("fuzz-chat"), fake_model("fuzz-embed", task="embedding"))


@pytest.mark.timeout(300)
def test_no_request_breaks_the_service_or_its_document(tmp_path: Path) -> None:
    entries = tmp_path / "models" / "entries"
    entries.mkdir(parents=True)
    for model in MODELS:
        (entries / f"{model.id}.yaml").write_text(write_entry(model), encoding="utf-8")
    environment = {"PAGODA_DEFAULTS_CHAT": "fuzz-chat", "PAGODA_DEFAULTS_EMBEDDING": "fuzz-embed"}
    environment["PAGODA_ADMIN_KEY"] = "the-key-of-the-fuzzer"  # else it makes an admin key and locks itself out
    environment["PAGODA_MODELS_OFFLINE"] = "true"  # /load may pull
    command = [sys.executable, "-m", "schemathesis.cli", "run", "--max-examples=8", "--generation-deterministic"]
    # What a document cannot say (best_of must equal n, an embedding model cannot chat) is refused although it fits it.
    # Requests without a key are shown to be refused in test_access; here they would only be slowed down.
    command.append("--exclude-checks=positive_data_acceptance,ignored_auth")
    command.append("--exclude-path=/api/v1/drain")  # it ends the service, as it should
    command.append("--exclude-path=/api/v1/models/events")  # it has no end, as it should
    command.append("--header=Authorization: Bearer the-key-of-the-fuzzer")
    bounds = ["--phases=examples,coverage,fuzzing", "--max-failures=20", "--no-color", "--request-timeout=20"]
    (tmp_path / "schemathesis.toml").write_text(CONFIG, encoding="utf-8")
    with process(tmp_path, environment=environment) as (url, child):
        run = subprocess.run(
            [*command, *bounds, url + "/openapi.json"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=280,
            check=False,
        )
        assert run.returncode == 0, run.stdout[-12_000:] + run.stderr[-2000:]
        assert child.poll() is None, "the service died"
