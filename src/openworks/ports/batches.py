"""Batches: files of requests that are answered when the machine has nothing better to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from openworks.core.errors import AppError
from openworks.core.ids import AccountId, KeyId, RequestId
from openworks.core.json import JsonObject
from openworks.core.pages import Page, PageRequest
from openworks.ports.calls import Principal, Usage
from openworks.ports.files import File
from openworks.ports.jobs import Claim, NewJob

BatchStatus = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]
CANCELLABLE: Final[frozenset[BatchStatus]] = frozenset({"validating", "in_progress"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A file of requests of one account, and what has become of them."""

    id: str
    account_id: AccountId
    key_id: KeyId | None
    """The key that made it, in whose name its lines are answered."""
    allowed_models: frozenset[str] | None
    """What that key might use; as `Principal.allowed_models`."""
    created_at_s: float
    expires_at_s: float
    endpoint: str
    """The path of the route that answers every line."""
    input_file_id: str
    output_ttl_s: int | None = None
    """How long the files that it makes live; None for ever."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    status: BatchStatus = "validating"
    reached_at_s: Mapping[BatchStatus, float] = field(default_factory=dict)
    """When it came to each status after the first."""
    model: str | None = None
    """What every line names; None until the lines were looked at."""
    num_lines: int = 0
    num_completed: int = 0
    num_failed: int = 0
    usage: Usage = Usage()
    errors: tuple[JsonObject, ...] = ()
    """Why it failed: `code`, `message`, `param` and `line`."""
    output_file_id: str | None = None
    error_file_id: str | None = None

    @property
    def principal(self) -> Principal:
        """In whose name its lines are answered."""
        return Principal(
            account_id=self.account_id,
            key_id=self.key_id,
            scopes=frozenset({"inference"}),
            allowed_models=self.allowed_models,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LineResult:
    """What has become of one line."""

    number: int
    """The line's place in the input, from 1 on; empty lines count."""
    is_error: bool
    """Whether it belongs into the file of errors."""
    data: bytes
    """The line of the file that tells of it, without its end."""
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLine:
    """A line that has been answered, without its answer."""

    number: int
    is_error: bool
    size_bytes: int


class BatchStore(Protocol):
    """Where batches are kept, and the results of their lines until they are in files.

    What belongs to another account is not there. Methods with a claim raise `LeaseLostError` when
    somebody else has taken over, and change nothing then.
    """

    async def insert(self, batch: Batch, job: NewJob) -> None:
        """Keep a batch with the job that answers it."""
        ...

    async def get(self, account_id: AccountId, batch_id: str) -> Batch | None:
        """Find one."""
        ...

    async def list(self, account_id: AccountId, page: PageRequest) -> Page[Batch]:
        """Return a page, ordered by creation, then id.

        Raises:
            InvalidRequestError: `after` or `before` is not the id of a batch of the account.
        """
        ...

    async def begin_cancel(
        self, account_id: AccountId, batch_id: str, *, at_s: float
    ) -> Batch | None:
        """Make it `cancelling` if it is in one of `CANCELLABLE`; return it as it then is."""
        ...

    async def advance(
        self,
        claim: Claim,
        status: Literal["in_progress", "finalizing"],
        *,
        at_s: float,
        num_lines: int | None = None,
        model: str | None = None,
    ) -> Batch:
        """Bring it to a status, unless it is `cancelling`; return it as it then is.

        That counts as progress, also when it was there already.

        Args:
            claim: Of its job.
            status: The next one.
            at_s: Now.
            num_lines: How many requests it has, when that is known now.
            model: What they name, likewise.
        """
        ...

    async def add_results(self, claim: Claim, results: Sequence[LineResult]) -> None:
        """Keep what has become of lines that had no result, and count it."""
        ...

    async def list_results(self, batch_id: str) -> Sequence[KeptLine]:
        """Return every line that has a result, in the order of the input."""
        ...

    async def read_results(
        self, batch_id: str, *, is_error: bool, first: int, last: int
    ) -> Sequence[bytes]:
        """Return the results from line `first` to line `last`, in the order of the input."""
        ...

    async def postpone(self, claim: Claim, *, due_at_s: float) -> None:
        """Let somebody go on with it later."""
        ...

    async def finish(self, claim: Claim, batch: Batch, files: Sequence[File]) -> None:
        """Bring it to the end that `batch` describes, with its files, whose content is kept.

        Its results and its job are gone then.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LineRequest:
    """What one line asks for."""

    principal: Principal
    endpoint: str
    request_id: RequestId
    """The same however often the line is begun."""
    body: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class LineAnswer:
    """What the route would have said."""

    status: int
    body: bytes
    """A JSON document."""
    usage: Usage = Usage()


class LineAnswerer(Protocol):
    """The routes, as batches ask them: in idle time, without a network."""

    async def check_model(self, principal: Principal, endpoint: str, model: str) -> None:
        """Return if a model can answer the lines of a batch.

        Raises:
            AppError: It does not exist, is for something else, or may not be used.
        """
        ...

    async def answer(self, request: LineRequest) -> LineAnswer:
        """Answer one line; a refusal that another try would not change is an answer.

        Raises:
            AppError: It is worth another try.
        """
        ...

    def refusal(self, error: AppError) -> LineAnswer:
        """Return an error as the route would have told it."""
        ...
