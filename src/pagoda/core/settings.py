"""Settings: what can be set, section by section, as values that are passed down. They are read in ``configuration``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pagoda.core.pool_settings import PoolSettings
from pagoda.core.setting_values import ByteSize, Secret
from pagoda.core.settings_field import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """``[server]``: the HTTP service."""

    host: str = setting("127.0.0.1", "Address to bind; off loopback every request needs a key.")
    port: int = setting(8000, "Port to bind; 0 takes a free one.", low=0, high=65535)
    workers: int = setting(1, "Processes that serve requests, behind one port.", low=1, high=256)
    instances: str = setting(
        "single",
        "Whether further services share keys, limits and cache with this one; several needs PostgreSQL and Redis.",
        choices=("single", "several"),
    )
    root_path: str = setting("", "URL path under which a proxy serves Pagoda, for example /pagoda.")
    cors_origins: tuple[str, ...] = setting((), "Origins whose pages may call the API; empty closes it to other sites.")
    trusted_proxies: tuple[str, ...] = setting(
        (), "Addresses or networks of proxies whose X-Forwarded-For names the client."
    )
    max_body_bytes: int = setting(16 * 1024 * 1024, "Largest request body, bytes.", low=1024)
    max_file_bytes: int = setting(200 * 1024 * 1024, "Largest upload to /v1/files, bytes.", low=1024)
    keepalive_seconds: float = setting(
        15.0, "Silence after which a stream gets a keep-alive comment, seconds.", low=0.05
    )
    drain_grace_seconds: float = setting(
        0.0,
        "Time from the wish to end until the gate shuts; behind a proxy more than it keeps idle connections, seconds.",
        low=0,
    )
    drain_seconds: float = setting(30.0, "Longest wait for requests in flight at shutdown, seconds.", low=0)
    metrics: bool = setting(True, "Serve Prometheus metrics at /metrics.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """``[defaults]``: models that answer requests which name none."""

    chat: str = setting("smollm2-135m-instruct", "Model for chat and text.")
    embedding: str = setting("multilingual-e5-small", "Model for embeddings.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """``[models]``: where models come from and what they are called."""

    directory: str = setting("", "Where model files are kept; empty means models/ in PAGODA_HOME.")
    aliases: dict[str, str] = setting({}, "Other names for models, for clients that insist on one.")
    hub_url: str = setting("https://huggingface.co", "Hugging Face hub or a mirror of it.")
    hub_token: Secret = setting(Secret(""), "Access token for private or gated repositories.")
    ca_bundle: str = setting("", "PEM file with a private certificate authority.")
    proxy: str = setting("", "HTTP(S) proxy for downloads; empty uses the environment's HTTPS_PROXY.")
    offline: bool = setting(False, "Never touch the network for models.")
    preload: tuple[str, ...] = setting((), "Models to load when the service starts.")
    pinned: tuple[str, ...] = setting((), "Models to load at start and never to remove from memory for others.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """``[engines]``: the processes that run models."""

    threads: int = setting(0, "Threads an engine computes with; 0 means all physical cores, shared out.", low=0)
    parallel: int = setting(
        0, "Requests one local engine computes at once; 0 means the engine's choice (llamacpp: 4).", low=0, high=1024
    )
    context: int = setting(0, "Context of one request, tokens; 0 means the model's own, at most 4096.", low=0)
    kv_type: str = setting(
        "f16", "How keys and values are kept: q8_0 takes half the memory of f16.", choices=("f16", "q8_0")
    )
    memory: ByteSize = setting(
        ByteSize(0), "Memory that all engines together may fill, such as 12GB; 0 means 80 % of the machine's.", low=0
    )
    gpu_memory: ByteSize = setting(
        ByteSize(0), "GPU memory that all engines together may fill; 0 means 92 % of what the GPUs have.", low=0
    )
    idle_seconds: float = setting(0.0, "Idle time after which a model leaves memory, seconds; 0 means never.", low=0)
    swap_seconds: float = setting(
        15.0, "Time that a busy model keeps its memory while another waits for it, seconds.", low=0
    )
    start_seconds: float = setting(120.0, "Longest wait for an engine to become ready, seconds.", low=1)
    spin: int = setting(
        1000, "Rounds an engine's idle thread spins before it sleeps; more is faster alone, slow beside others.", low=0
    )
    device: str = setting(
        "auto",
        "Where the transformers engine computes; auto takes CUDA if it is there.",
        choices=("auto", "cpu", "cuda"),
    )
    dtype: str = setting(
        "auto",
        "Number type of the transformers engine; auto: float32 on a CPU, bfloat16 on CUDA.",
        choices=("auto", "float32", "float16", "bfloat16"),
    )
    vllm_arguments: tuple[str, ...] = setting((), "Further arguments of vLLM's server, for example -O1.")
    vllm_sleep: bool = setting(
        False,
        "Put an idle vLLM to sleep in the host's memory when another model needs its GPU memory, instead of ending it.",
    )
    retry_seconds: float = setting(1.0, "First wait before a crashed engine is started again; doubles.", low=0.01)
    request_seconds: float = setting(
        600.0, "Longest silence of an engine in one request before it counts as failed, seconds.", low=1
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """``[admission]``: who is served when more is asked than can be done."""

    queue: int = setting(512, "Requests that may wait for a model; further ones are refused.", low=1)
    wait_seconds: float = setting(
        300.0, "Longest wait for a turn, seconds; 0 means no limit. Batch work may wait longer.", low=0
    )
    aging_seconds: float = setting(
        60.0, "Wait after which a request counts as one class more urgent, seconds; 0: never.", low=0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """``[routing]``: how the replicas of pools are watched, and how often a request is tried."""

    attempts: int = setting(3, "Replicas that one request is tried on at most.", low=1, high=20)
    retry_share: float = setting(0.2, "Retries in relation to requests, beyond a small constant.", low=0, high=1)
    backoff_seconds: float = setting(0.05, "Longest first wait before a retry, seconds; doubles.", low=0, high=10)
    health_seconds: float = setting(1.0, "Time between two looks at each replica, seconds.", low=0.02, high=60)
    silence_seconds: float = setting(
        3.0, "Silence after which a busy replica is suspected, seconds; more where its own pace is slower.", low=0.05
    )
    misses: int = setting(3, "Looks in a row that must find a replica silent before it leaves its pool.", low=1)
    timeouts: int = setting(3, "Timeouts in a row that open a replica's circuit.", low=1)
    failures: int = setting(5, "Failures in a row that open a replica's circuit.", low=1)
    open_seconds: float = setting(
        2.0, "How long a circuit stays open before one request probes it, seconds; doubles up to a minute.", low=0.01
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """``[cache]``: answers kept for equal questions."""

    enabled: bool = setting(True, "Keep answers and give them again to equal requests.")
    routes: dict[str, str] = setting(
        {},
        "What is kept, by endpoint or purpose (* for all others, else deterministic).",
        choices=("deterministic", "always", "never", "semantic"),
    )
    ttl_seconds: float = setting(3600.0, "How long an answer is kept, seconds.", low=1)
    max_bytes: int = setting(256 * 1024 * 1024, "Memory for answers kept in the service process, bytes.", low=1024)
    redis_url: Secret = setting(Secret(""), "Redis that keeps the answers of several services, redis://...")
    redis_seconds: float = setting(0.05, "Longest wait for Redis in a request, seconds.", low=0.001, high=5)
    semantic_max_false_hits: float = setting(
        0.01, "Share of different questions that may get another's answer, on routes set to semantic.", low=0, high=1
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """``[keys]``: who may ask."""

    admin_key: Secret = setting(
        Secret(""), "Key that may do everything, kept nowhere else; at least 16 characters.", env="PAGODA_ADMIN_KEY"
    )
    refresh_seconds: float = setting(
        5.0, "How often keys in memory are renewed: a key revoked elsewhere works this long.", low=0.05
    )
    stale_seconds: float = setting(
        600.0, "How long keys in memory go on working while the database does not answer, seconds.", low=0
    )
    lookup_seconds: float = setting(
        2.0, "Longest wait for the database in a request whose key is not in memory, seconds.", low=0.01
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """``[limits]``: how the limits of keys and teams are held."""

    redis_url: Secret = setting(Secret(""), "Redis that counts for several services, redis://...; empty: this process.")
    redis_seconds: float = setting(0.05, "Longest wait for Redis in a request, seconds.", low=0.001, high=5)
    when_store_is_gone: str = setting(
        "refuse",
        "What happens to limited requests while Redis or the database is gone; allow counts in this process alone.",
        choices=("refuse", "allow"),
    )
    lease_seconds: float = setting(
        60.0, "Silence after which a service counts as dead and what it held is charged, seconds.", low=5, high=3600
    )
    write_seconds: float = setting(0.5, "How often usage is written to the database, seconds.", low=0.05, high=60)
    answer_tokens: int = setting(
        4096, "Longest answer to a limited request that names no max_tokens; its worst case is reserved.", low=1
    )
    template_tokens: int = setting(128, "Tokens that a chat template may add by itself, for the worst case.", low=0)
    charge_cache_hits: bool = setting(False, "Charge answers from the response cache like computed ones.")
    metrics_by_key: bool = setting(False, "Label metrics of usage with the key too, not only with the team.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """``[prices]``: what tokens cost."""

    currency: str = setting("USD", "Currency of all prices and budgets.")
    models: dict[str, str] = setting(
        {}, "Price of a million tokens by model id, input/cached/output such as 0.15/0.075/0.60; * is for all others."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """``[prompts]``: prompts that are kept."""

    refresh_seconds: float = setting(
        0.5, "How often each process looks for changed prompts: a label moved elsewhere is old this long.", low=0.02
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """``[client]``: Pagoda as a client of a service at another address."""

    key: Secret = setting(Secret(""), "Key that connect() and commands send to another service.", env="PAGODA_API_KEY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """``[storage]``: the database of records."""

    url: Secret = setting(
        Secret(""), "SQLAlchemy URL; empty means SQLite in PAGODA_HOME, postgresql://... for several processes."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """``[log]``: what the service writes to standard error."""

    level: str = setting("info", "Least important level shown.", choices=("debug", "info", "warning", "error"))
    format: str = setting("text", "Text for people or one JSON object a line.", choices=("text", "json"))
    access: str = setting(
        "all",
        "Requests that get a line: all (but health and metrics), or only those that failed.",
        choices=("off", "errors", "all"),
    )
    content: str = setting(
        "off", "Prompts and answers to keep in the database, secrets masked.", choices=("off", "errors", "all")
    )
    content_days: float = setting(30.0, "How long prompts and answers are kept, days.", low=0.001)


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiments:
    """``[experiments]``: how soon a change holds everywhere, and how often what was seen is written."""

    refresh_seconds: float = setting(
        0.5, "How often a process reads which experiments run, seconds.", low=0.05, high=60
    )
    write_seconds: float = setting(
        0.5, "How often what was seen of experiments is written to the database, seconds.", low=0.05, high=60
    )
    adapt_seconds: float = setting(30.0, "How often adaptive experiments are shared out anew, seconds.", low=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviews:
    """``[reviews]``: which answers people are to look at, and how many people each."""

    complaints: bool = setting(True, "Queue answers that feedback complains about (thumb down, or a correction).")
    sample: float = setting(0.0, "Share of all answers that is queued at random.", low=0, high=1)
    confidence: float = setting(
        0.0,
        "Mean probability of an answer's tokens below which it is queued, where requests ask for them.",
        low=0,
        high=1,
    )
    flag: tuple[str, ...] = setting((), "Regular expressions; answers in which one is found are queued.")
    hold: tuple[str, ...] = setting(
        (), "Regular expressions; answers in which one is found are held back until somebody approves them."
    )
    reviewers: int = setting(1, "People who judge each answer.", low=1, high=20)
    claim_seconds: float = setting(600.0, "How long a claimed answer is kept for its reviewer, seconds.", low=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """``[quality]``: answers scored off the request's path, into metrics."""

    share: float = setting(0.0, "Share of all answers that is scored by rules.", low=0, high=1)
    judge: str = setting("", "Model that scores them too, by id or alias; empty: rules alone.")
    judge_share: float = setting(0.1, "Share of the scored answers that the judge sees.", low=0, high=1)
    criteria: str = setting(
        "The answer does what was asked, is correct, and is clear.", "What the judge is to look for, in any language."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """``[tools]``: what agents and callers of ``/api/v1/tools`` may have done."""

    functions: tuple[str, ...] = setting(
        (), "Python functions (or Tool objects) that are tools, as package.module:name."
    )
    documents: str = setting("", "Folder of text files in which the tool search looks; empty: no such tool.")
    search_url: str = setting("", "SearXNG server that the tool search asks instead; its host must be allowed below.")
    hosts: tuple[str, ...] = setting(
        (), "Hosts that the tool http_get may ask, *.example.org for all below one; empty: no such tool."
    )
    private_hosts: tuple[str, ...] = setting(
        (), "Of the operator's own network, hosts that tools may ask all the same."
    )
    openapi: dict[str, str] = setting({}, "OpenAPI documents (files) whose operations are tools, by a name for each.")
    mcp: dict[str, str] = setting({}, "MCP servers whose tools may be called: a URL or a command line, by name.")
    agents: dict[str, str] = setting({}, "Sub-agents (YAML files) that agents may call as tools, by name.")
    seconds: float = setting(30.0, "Longest time of one call, seconds.", low=0.1, high=3600)
    characters: int = setting(20_000, "Longest result that a model is shown, characters.", low=100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """``[telemetry]``: what is told to monitoring."""

    goodput_first_token_seconds: float = setting(
        2.0, "Longest time to the first text of an answer that counts as good (llm_goodput_requests_total).", low=0.001
    )
    goodput_token_seconds: float = setting(
        0.2, "Longest mean time between pieces of an answer that counts as good.", low=0.001
    )
    otlp_url: str = setting(
        "", "OTLP/HTTP address that traces are sent to, such as http://127.0.0.1:4318/v1/traces; empty: none."
    )
    trace_share: float = setting(
        1.0, "Share of the traces that begin here which is kept; a client's own choice comes first.", low=0, high=1
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set, as values."""

    home: Path
    server: Server = Server()
    defaults: Defaults = Defaults()
    models: Models = Models()
    engines: Engines = Engines()
    admission: Admission = Admission()
    routing: Routing = Routing()
    cache: Cache = Cache()
    keys: Keys = Keys()
    prompts: Prompts = Prompts()
    client: Client = Client()
    limits: Limits = Limits()
    prices: Prices = Prices()
    storage: Storage = Storage()
    log: Log = Log()
    experiments: Experiments = Experiments()
    reviews: Reviews = Reviews()
    quality: Quality = Quality()
    telemetry: Telemetry = Telemetry()
    tools: Tools = Tools()
    origins: Mapping[str, str] = field(default_factory=dict)
    """Where each setting that is not a default came from, by dotted key."""
    pools: Mapping[str, PoolSettings] = field(default_factory=dict)

    @property
    def models_directory(self) -> Path:
        """Where model files are kept."""
        return Path(self.models.directory).expanduser() if self.models.directory else self.home / "models"

    @property
    def runs_directory(self) -> Path:
        """Where runs keep their folders."""
        return self.home / "runs"
