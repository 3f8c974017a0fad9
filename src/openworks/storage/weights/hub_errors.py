"""What the Hub's client raises, in our words: which thing, which file, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError

import httpx2
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from openworks.core.errors import (
    AppError,
    ModelNotFoundError,
    PermissionDeniedError,
    ProviderError,
    ProviderTimeoutError,
    StorageError,
)

_OFFLINE_HINT = "Without a network, copy the file to this machine and pass its path."


@contextmanager
def translated(
    endpoint: str, repo: str, *, revision: str | None = None, file: str | None = None
) -> Iterator[None]:
    """Turn library errors inside the block into ours, naming what was asked for."""
    thing = f"'{file}' of repository '{repo}'" if file else f"repository '{repo}'"
    try:
        yield
    except HfHubHTTPError as error:
        raise _answered(error, endpoint, repo, revision, thing) from error
    except httpx2.TimeoutException as error:
        raise ProviderTimeoutError(
            f"{endpoint} took too long to send {thing}. What came is kept: asking again continues"
            f" there. {_OFFLINE_HINT}"
        ) from error
    except (httpx2.HTTPError, OfflineModeIsEnabled) as error:
        reason = str(error) or type(error).__name__
        raise ProviderError(
            f"{endpoint} could not be reached for {thing}: {reason.rstrip('.')}. {_OFFLINE_HINT}"
        ) from error
    except JSONDecodeError as error:
        raise ProviderError(f"{endpoint} did not answer as a Hub does for {thing}.") from error
    except OSError as error:
        raise StorageError(f"This machine could not keep {thing}: {error}.") from error


def _answered(
    error: HfHubHTTPError, endpoint: str, repo: str, revision: str | None, thing: str
) -> AppError:
    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        return PermissionDeniedError(
            f"Repository '{repo}' is gated: accept its licence at {endpoint}/{repo}, and set"
            " HF_TOKEN to a token of the account that did."
        )
    # 401 is also what the Hub says of a repository that is not there to a caller without a token.
    if isinstance(error, RepositoryNotFoundError) or status == httpx2.codes.UNAUTHORIZED:
        return ModelNotFoundError(
            f"No repository found with name '{repo}' on {endpoint}. If it is private, set HF_TOKEN"
            " to a token that may read it."
        )
    if isinstance(error, RevisionNotFoundError):
        return ModelNotFoundError(f"Repository '{repo}' has no revision '{revision}'.")
    if isinstance(error, RemoteEntryNotFoundError):
        return ModelNotFoundError(f"There is no {thing} on {endpoint}.")
    if status == httpx2.codes.FORBIDDEN:
        return PermissionDeniedError(
            f"{endpoint} does not let this token read {thing}; set HF_TOKEN to one that may."
        )
    return ProviderError(f"{endpoint} answered HTTP {status} for {thing}.")
