"""Runs, in which assistants work on threads, and the steps that they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from openworks.core.ids import AccountId, KeyId
from openworks.core.json import JsonObject, JsonValue
from openworks.core.pages import Page, PageRequest
from openworks.ports.calls import Usage
from openworks.ports.events import NewEvents
from openworks.ports.jobs import NewJob, Rest
from openworks.ports.threads import Message, Thread

RunStatus = Literal[
    "queued",
    "in_progress",
    "requires_action",
    "cancelling",
    "cancelled",
    "failed",
    "completed",
    "incomplete",
    "expired",
]
StepStatus = Literal["in_progress", "cancelled", "failed", "completed", "expired"]

ACTIVE: Final[frozenset[RunStatus]] = frozenset(
    {"queued", "in_progress", "requires_action", "cancelling"}
)
"""A run with one of these has its thread to itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """How a run is to be done, in OpenAI's names and shapes: what its caller and assistant said."""

    assistant_id: str
    model: str
    """As the caller names it."""
    instructions: str = ""
    tools: tuple[JsonObject, ...] = ()
    tool_choice: JsonValue = "auto"
    parallel_tool_calls: bool = True
    temperature: float | None = None
    top_p: float | None = None
    reasoning_effort: str | None = None
    response_format: JsonValue = "auto"
    max_prompt_tokens: int | None = None
    """Of all turns together; so is the next."""
    max_completion_tokens: int | None = None
    last_messages: int | None = None
    """How many messages of the thread the model sees; None for as many as fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunError:
    """Why a run failed."""

    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionCall:
    """A function that the model wants to be called, and what that came to."""

    id: str
    name: str
    arguments: str
    """JSON, as the model wrote it."""
    output: str | None = None
    """None until somebody has called it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """An assistant's work on a thread."""

    id: str
    thread_id: str
    account_id: AccountId
    created_at_s: float
    expires_at_s: float
    settings: RunSettings
    route: str
    """The path template that made it, for records of its calls; so is the next."""
    key_id: KeyId | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    status: RunStatus = "queued"
    open_calls: tuple[FunctionCall, ...] = ()
    """What its caller is to call, while the status is `requires_action`."""
    num_turns: int = 0
    """How often the model has answered."""
    started_at_s: float | None = None
    ended_at_s: float | None = None
    usage: Usage = Usage()
    """Of the turns that have ended; of it, only prompt and completion are kept."""
    error: RunError | None = None
    incomplete_reason: str | None = None

    @property
    def is_active(self) -> bool:
        """Whether it is not over."""
        return self.status in ACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStep:
    """What a run does: write a message, or have functions called."""

    id: str
    run_id: str
    number: int
    """0 for the first of its run."""
    turn: int
    """Which turn of the model it is a part of, from 0."""
    created_at_s: float
    message_id: str | None = None
    """None for a step of calls."""
    tool_calls: tuple[FunctionCall, ...] = ()
    status: StepStatus = "in_progress"
    ended_at_s: float | None = None
    usage: Usage = Usage()
    error: RunError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """All that begins with a run, to be kept in one transaction."""

    run: Run
    job: NewJob
    events: NewEvents
    messages: Sequence[Message] = ()
    """To be put at the end of the thread first."""
    thread: Thread | None = None
    """Given when the thread is new as well."""
    most_messages: int
    """How many messages a thread may hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunChange:
    """What the worker of a run has done, to be kept in one transaction."""

    was: RunStatus
    """The status that the run has now; with another one, nothing is kept."""
    run: Run
    """As it is from now on, but for the metadata, which is not the worker's."""
    new_steps: Sequence[RunStep] = ()
    steps: Sequence[RunStep] = ()
    """Those that have changed."""
    new_message: Message | None = None
    """To be put at the end of the thread."""
    message: Message | None = None
    """One that has changed; if somebody has deleted it, it stays so."""
    events: NewEvents
    rest: Rest | None = None
    """What becomes of the job; None while its work goes on."""
    is_progress: bool = False
    """As with `storage.sql.jobs.hold`."""


class RunStore(Protocol):
    """Where runs and their steps are kept. What belongs to another account is not there."""

    async def insert(self, new: NewRun) -> bool:
        """Keep a run with its job and all else that comes with it; False without its thread.

        Raises:
            InvalidRequestError: The thread has an active run, or holds as many messages as it may.
        """
        ...

    async def get(self, account_id: AccountId, thread_id: str, run_id: str) -> Run | None:
        """Find one; a run on another thread is not there."""
        ...

    async def find(self, run_id: str) -> Run | None:
        """Find one, whoever's it is."""
        ...

    async def list(
        self, account_id: AccountId, thread_id: str, page: PageRequest
    ) -> Page[Run] | None:
        """Return a page ordered by creation, then id; None when there is no such thread.

        Raises:
            InvalidRequestError: `after` or `before` is not the id of a run on the thread.
        """
        ...

    async def set_metadata(
        self, account_id: AccountId, thread_id: str, run_id: str, metadata: Mapping[str, str]
    ) -> Run | None:
        """Replace the metadata; None when there is no such run."""
        ...

    async def begin_cancel(self, run: Run, *, now_s: float) -> bool:
        """Make an active run `cancelling`, and have somebody end it; False when it is over."""
        ...

    async def submit(self, run: Run, outputs: Mapping[str, str], *, now_s: float) -> bool:
        """Keep the outputs of all open calls, and have the run go on at once.

        False when the run does not wait for them, or not for these any more.
        """
        ...

    async def change(self, change: RunChange, *, now_s: float) -> None:
        """Keep what a worker has done.

        Raises:
            LeaseLostError: The claim of the events does not stand any more.
            ConflictError: The run has another status than the worker thinks.
        """
        ...

    async def steps(self, run_id: str) -> Sequence[RunStep]:
        """Return all steps of a run, in their order."""
        ...

    async def get_step(self, run_id: str, step_id: str) -> RunStep | None:
        """Find a step."""
        ...

    async def list_steps(self, run_id: str, page: PageRequest) -> Page[RunStep]:
        """Return a page of steps in their order.

        Raises:
            InvalidRequestError: `after` or `before` is not the id of a step of the run.
        """
        ...
