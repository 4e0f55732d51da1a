"""The errors of Pagoda: one root, one tree; a caller catches the branch it can handle.

::

    PagodaError                    code, message, retryable, param
    ├── UserError                  what was asked cannot be done; asking again changes nothing
    │   ├── InvalidRequest         a value is malformed, out of range or not supported
    │   ├── NotFound               the named thing does not exist
    │   ├── Conflict               the thing exists already, or is in another state
    │   ├── Unauthenticated        the caller did not say who it is, or not believably
    │   ├── Forbidden              the caller may not do this
    │   ├── TooLarge               the body or file passes a stated limit
    │   ├── LimitExceeded          the key or its team has used what it may
    │   └── ConfigError            settings are wrong; lists every mistake
    ├── ModelError                 a model or its engine did not give the answer
    │   ├── Unavailable            no engine can be reached or started
    │   ├── Overloaded             the engine or its queue is full
    │   ├── ModelTimeout           the deadline passed
    │   ├── ContextTooLong         the prompt does not fit the model's context
    │   ├── Rejected               the engine refused the request
    │   └── BadOutput              the model's answer breaks the demanded form
    ├── ToolError                  a tool failed
    ├── SafetyError                a guard refused
    └── StoreError                 a file, database or cache failed

Exceptions of other libraries are translated in the one file that imports them, with the cause kept
(``raise Unavailable(...) from error``). HTTP status codes are known to the interface alone.
"""

from __future__ import annotations

from collections.abc import Sequence


class PagodaError(Exception):
    """Root of all errors that Pagoda raises on purpose.

    ``message`` is one sentence for people that says what to do next; ``code`` is a stable word for programs;
    ``retryable`` says whether the same request may succeed later; ``param`` names the input at fault, if one is.
    """

    code = "error"
    retryable = False

    def __init__(
        self, message: str, *, code: str | None = None, retryable: bool | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code
        if retryable is not None:
            self.retryable = retryable


class UserError(PagodaError):
    """What was asked cannot be done."""

    code = "invalid_request"


class InvalidRequest(UserError):
    """A value is malformed, out of range or not supported."""


class NotFound(UserError):
    """The named thing does not exist."""

    code = "not_found"


class Conflict(UserError):
    """The thing exists already, or is in a state that does not allow this."""

    code = "conflict"


class Unauthenticated(UserError):
    """The caller did not say who it is, or not believably."""

    code = "invalid_api_key"


class Forbidden(UserError):
    """The caller may not do this."""

    code = "forbidden"


class TooLarge(UserError):
    """The body or file passes a stated limit."""

    code = "too_large"


class LimitExceeded(UserError):
    """The key or its team has used what it may; ``retry_after`` (seconds) is when there may be room, if ever."""

    code = "rate_limit_exceeded"

    def __init__(
        self, message: str, *, code: str | None = None, param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, code=code, retryable=retry_after is not None, param=param)
        self.retry_after = retry_after


class ConfigError(UserError):
    """Settings are wrong. ``mistakes`` holds every one of them, each a sentence."""

    code = "config_error"

    def __init__(self, mistakes: Sequence[str]) -> None:
        self.mistakes = tuple(mistakes)
        count = len(self.mistakes)
        head = "1 setting is wrong" if count == 1 else f"{count} settings are wrong"
        super().__init__(head + ":\n" + "\n".join(f"  - {mistake}" for mistake in self.mistakes))


class ModelError(PagodaError):
    """A model or its engine did not give the answer."""

    code = "model_error"
    retry_after: float | None = None
    """Seconds after which the engine asks to be asked again, where it told."""


class Unavailable(ModelError):
    """No engine can be reached or started."""

    code = "model_unavailable"
    retryable = True


class Overloaded(ModelError):
    """The engine or its queue is full; ``retry_after`` (seconds) is when it may not be."""

    code = "overloaded"
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        retryable: bool | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, code=code, retryable=retryable, param=param)
        self.retry_after = retry_after


class ModelTimeout(ModelError):
    """The deadline passed before the answer was there."""

    code = "timeout"
    retryable = True


class ContextTooLong(ModelError):
    """The prompt (``tokens``) does not fit the model's context (``limit``, tokens)."""

    code = "context_length_exceeded"

    def __init__(self, tokens: int, limit: int, *, param: str | None = None) -> None:
        self.tokens = tokens
        self.limit = limit
        super().__init__(
            f"The prompt has {tokens} tokens; this model's context holds {limit}. Shorten the prompt.", param=param
        )


class Rejected(ModelError):
    """The engine refused the request; its own words are in the message."""

    code = "rejected"


class BadOutput(ModelError):
    """The model's answer breaks the form that was demanded."""

    code = "schema_violation"
    retryable = True


class ToolError(PagodaError):
    """A tool failed."""

    code = "tool_error"


class SafetyError(PagodaError):
    """A guard refused the input or the output."""

    code = "content_filter"


class StoreError(PagodaError):
    """A file, database or cache failed."""

    code = "store_error"
