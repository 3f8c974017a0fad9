"""The error tree: what can go wrong, which status it has, and whether asking again helps.

    AppError
      InvalidRequestError 400
        ContextLengthExceededError 400
        UnsupportedParameterError 400
        UnsupportedFileError 400
        InvalidFileError 400
          EncryptedFileError 400
          FileTooComplexError 400
      AuthenticationError 401
      PermissionDeniedError 403
      NotFoundError 404
        ModelNotFoundError 404
        UnknownEndpointError 404
      MethodNotAllowedError 405
      RequestTimeoutError 408
      ConflictError 409
        LeaseLostError 409
      PayloadTooLargeError 413
      RangeNotSatisfiableError 416
      BlockedError 424
      RateLimitError 429, retryable
        EngineOverloadedError 429, retryable
        SpendLimitError 429, retryable
      ClientClosedRequestError 499
      InternalError 500
      NotImplementedEndpointError 501
      ServerOverloadedError 503, retryable
      ProviderError 502
      ModelUnavailableError 503, retryable
        ModelLoadingError 503, retryable
        EngineCrashedError 503, retryable
      StorageError 503, retryable
      ProviderTimeoutError 504, retryable

We raise; only the `api` package renders, once per dialect.
"""

from __future__ import annotations

from typing import ClassVar


class AppError(Exception):
    """The root: a class fixes status, type and retryability; an instance says what happened."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = None
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """Hold what the caller is told.

        Args:
            message: Names the thing and the value; ends with a full stop.
            code: A machine-readable reason; the class's own when None.
            param: The request field at fault, as a path such as `messages[0].content`.
            retry_after_s: When asking again makes sense; becomes `Retry-After`.
        """
        super().__init__(message)
        self.message = message
        self.code = code if code is not None else self.default_code
        self.param = param
        self.retry_after_s = retry_after_s


class InvalidRequestError(AppError):
    """The request itself is wrong; sending it again changes nothing."""

    status = 400
    type = "invalid_request_error"


class ContextLengthExceededError(InvalidRequestError):
    """The prompt does not fit the model's context; the message carries both counts."""

    default_code = "context_length_exceeded"


class UnsupportedParameterError(InvalidRequestError):
    """A parameter is valid in the API and cannot be honoured by this model."""

    default_code = "unsupported_parameter"


class UnsupportedFileError(InvalidRequestError):
    """A file is of a kind that is not read here."""

    default_code = "unsupported_file"


class InvalidFileError(InvalidRequestError):
    """A file is broken, or is not what its name says."""

    default_code = "invalid_file"


class EncryptedFileError(InvalidFileError):
    """A file opens only with a password."""

    default_code = "encrypted_file"


class FileTooComplexError(InvalidFileError):
    """Reading a file takes more time or memory, or makes more text, than one file may."""

    default_code = "file_too_complex"


class AuthenticationError(AppError):
    """No key, or one that is unknown, revoked or expired."""

    status = 401
    type = "invalid_request_error"
    default_code = "invalid_api_key"


class PermissionDeniedError(AppError):
    """A good key that may not do this."""

    status = 403
    type = "invalid_request_error"
    default_code = "insufficient_permissions"


class NotFoundError(AppError):
    """No such thing, or not in this account."""

    status = 404
    type = "invalid_request_error"
    default_code = "not_found"


class ModelNotFoundError(NotFoundError):
    """The name resolves to no model that can be served here."""

    default_code = "model_not_found"


class UnknownEndpointError(NotFoundError):
    """A path that no API has."""

    default_code = "unknown_url"


class MethodNotAllowedError(AppError):
    """The path exists with another method."""

    status = 405
    type = "invalid_request_error"
    default_code = "method_not_allowed"


class RequestTimeoutError(AppError):
    """The client took too long to send its request."""

    status = 408
    type = "invalid_request_error"
    default_code = "request_timeout"


class ConflictError(AppError):
    """The thing is in a state that forbids this."""

    status = 409
    type = "invalid_request_error"
    default_code = "conflict"


class LeaseLostError(ConflictError):
    """Somebody else works on this job now: what this process still had to say is not written."""

    default_code = "lease_lost"


class PayloadTooLargeError(AppError):
    """The body is over the server's limit."""

    status = 413
    type = "invalid_request_error"
    default_code = "request_too_large"


class RangeNotSatisfiableError(AppError):
    """The range that was asked for begins behind the end."""

    status = 416
    type = "invalid_request_error"
    default_code = "range_not_satisfiable"


class RateLimitError(AppError):
    """A limit was reached; `retry_after_s` says when it opens again."""

    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"
    retryable = True


class BlockedError(AppError):
    """A guardrail or a data loss policy refused the prompt or the answer."""

    status = 424
    type = "policy_error"
    default_code = "blocked"


class SpendLimitError(RateLimitError):
    """A budget is used up; the message says which, how much was spent and what the limit is."""

    default_code = "spend_limit_exceeded"


class EngineOverloadedError(RateLimitError):
    """The model's waiting queue is full."""

    default_code = "engine_overloaded"


class ClientClosedRequestError(AppError):
    """The client left before the answer; nobody reads this, the ledger does."""

    status = 499
    type = "invalid_request_error"
    default_code = "client_closed_request"


class InternalError(AppError):
    """A fault of ours."""

    default_code = "internal_error"


class NotImplementedEndpointError(AppError):
    """OpenAI has this endpoint and this server does not (yet)."""

    status = 501
    type = "invalid_request_error"
    default_code = "endpoint_not_implemented"


class ServerOverloadedError(AppError):
    """As many requests are under way as this server takes at once."""

    status = 503
    default_code = "server_overloaded"
    retryable = True


class ProviderError(AppError):
    """A server that we call failed."""

    status = 502
    type = "provider_error"
    default_code = "provider_error"


class ModelUnavailableError(AppError):
    """The model exists and cannot answer now."""

    status = 503
    type = "server_error"
    default_code = "model_unavailable"
    retryable = True


class ModelLoadingError(ModelUnavailableError):
    """The model's weights are being loaded."""

    default_code = "model_loading"


class EngineCrashedError(ModelUnavailableError):
    """The process that ran the model died during this request; it is being restarted."""

    default_code = "engine_crashed"


class StorageError(AppError):
    """The database or the disk failed; nothing was written."""

    status = 503
    default_code = "storage_unavailable"
    retryable = True


class ProviderTimeoutError(ProviderError):
    """A server that we call did not answer in time."""

    status = 504
    default_code = "provider_timeout"
    retryable = True


def error_classes() -> dict[str, type[AppError]]:
    """Every error class by its name, so that an error can cross a process boundary."""
    found: dict[str, type[AppError]] = {}
    pending: list[type[AppError]] = [AppError]
    while pending:
        error_class = pending.pop()
        found[error_class.__name__] = error_class
        pending.extend(error_class.__subclasses__())
    return found
