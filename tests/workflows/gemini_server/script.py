"""What goes wrong with which call: a list, rates with a seed, and poisoned passages."""

from __future__ import annotations

import random
from typing import Annotated, Final, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

Kind = Literal[
    "ok",
    # Refused before the model is asked: nothing is billed.
    "rate_limited",
    "quota",
    "unavailable",
    "server_error",
    "bad_gateway",
    "deadline",
    "unauthorized",
    "unauthenticated",
    "forbidden",
    "not_found",
    "bad_request",
    "no_thinking",
    "too_long",
    "redirect",
    # The connection fails: nothing is billed.
    "timeout",
    "reset",
    "cut_stream",
    "stalled_stream",
    # The model answered, in a way; prompt and output are billed.
    "malformed_json",
    "malformed_body",
    "not_an_object",
    "cut_off",
    "missing",
    "doubled",
    "foreign",
    "invalid",
    "other_model",
    "unnamed",
    # The prompt alone is billed.
    "empty",
    "no_parts",
    "blocked_prompt",
    "blocked_answer",
]

JobFault = Literal[
    "ok",
    "shuffled",
    # The answers are not those that were asked for.
    "swapped",
    "missing",
    "doubled",
    "foreign",
    "no_keys",
    # The job ends without answers, or never.
    "expired",
    "failed",
    "cancelled",
    "stuck",
    # It is created and nobody hears of it: listed at once, or only later.
    "lost",
    "lost_late",
    # It is created, and told of without its name; or by its name, which is not known at first.
    "unnamed",
    "unseen",
    # It is not created: the service says so, or the connection breaks.
    "refused",
    "vanished",
]

OTHER_MODEL: Final = "gemini-3.5-flash"
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
JOB_FAULTS: Final[tuple[JobFault, ...]] = get_args(JobFault)


class Fault(BaseModel):
    """What happens to one call.

    ``seconds`` of latency come first, whatever the kind; ``retry`` is RetryInfo's time (429), None
    leaves it out; ``reason`` is the finish or block reason of a blocked call; ``model`` is what
    answers an ``other_model`` call.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind = "ok"
    seconds: NonNegativeFloat = 0.0
    retry: str | None = "0.05s"
    reason: str = "SAFETY"
    model: str = OTHER_MODEL


def _fault_of(value: object) -> object:
    """``"reset"`` stands for ``{"kind": "reset"}``."""
    return {"kind": value} if isinstance(value, str) else value


AnyFault = Annotated[Fault, BeforeValidator(_fault_of)]


class Poison(BaseModel):
    """Every call with a passage that holds ``marker`` fails like this.

    Faults of an item (``missing``, ``doubled``, ``invalid``) befall that passage's item alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    marker: str = Field(min_length=1)
    fault: AnyFault


class JobScript(BaseModel):
    """What goes wrong with batch jobs: ``faults`` job by job, then ``rates`` decide by ``seed``.

    ``requests`` are the rates of the faults of single requests. A job has ended at the poll after
    ``polls`` others; ``away`` is the share of all requests but those that create a job which are
    answered 503; ``page`` is the most jobs in one list. ``hollow``: an empty page comes before each
    other one; ``endless``: a further one comes after the last, and that is the first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    faults: tuple[JobFault, ...] = ()
    rates: dict[JobFault, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    requests: dict[Kind, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    seed: int = 0
    polls: NonNegativeInt = 1
    away: Annotated[float, Field(ge=0, le=1)] = 0.0
    page: PositiveInt = 50
    hollow: bool = False
    endless: bool = False

    def fault(self, number: int) -> JobFault:
        """The fault of a job; ``number`` counts from 0."""
        if number < len(self.faults):
            return self.faults[number]
        drawn = random.Random(f"job:{self.seed}:{number}").random()
        for fault, rate in self.rates.items():
            if drawn < rate:
                return fault
            drawn -= rate
        return "ok"

    def request_fault(self, number: int) -> Fault:
        """The fault of a request; ``number`` counts those of all jobs from 0."""
        drawn = random.Random(f"request:{self.seed}:{number}").random()
        for kind, rate in self.requests.items():
            if drawn < rate:
                return Fault(kind=kind)
            drawn -= rate
        return Fault()


class Script(BaseModel):
    """``faults`` are used up call by call; then ``rates`` (by kind, 0 to 1) decide by ``seed``.

    The same number of a call has the same fault in every run. ``latency`` (seconds) and
    ``thoughts`` (tokens, billed as output) are every call's, and so is ``cached``, the share of the
    prompt that is billed as cached; ``retry`` is RetryInfo's time of what
    ``rates`` draw. ``shed`` is the share of flex calls that are turned away before all else, and
    ``served_as`` the tier that answers are said to be of, that of the request where it is None.
    ``at_once``: calls that are answered at a time, each number for ``at_once_for`` seconds from the
    first call on, then from the beginning; others are refused at once (429). ``jobs``: of batches.
    ``at_most``: times that one kind befalls a passage before it is answered well, so that chance
    cannot keep one from that for ever; None: any number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    faults: tuple[AnyFault, ...] = ()
    rates: dict[Kind, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    seed: int = 0
    at_most: PositiveInt | None = None
    poison: tuple[Poison, ...] = ()
    latency: NonNegativeFloat = 0.0
    thoughts: NonNegativeInt = 0
    cached: Annotated[float, Field(ge=0, le=1)] = 0.0
    shed: Annotated[float, Field(ge=0, le=1)] = 0.0
    served_as: str | None = None
    retry: str | None = "0.05s"
    at_once: tuple[PositiveInt, ...] = ()
    at_once_for: PositiveFloat = 5.0
    jobs: JobScript = JobScript()

    def most(self, seconds: float) -> int | None:
        """Calls that are answered at a time so long after the first; None: any number."""
        if not self.at_once:
            return None
        return self.at_once[int(seconds // self.at_once_for) % len(self.at_once)]

    def fault(self, number: int) -> Fault:
        """The fault of a call; ``number`` counts from 0."""
        if number < len(self.faults):
            return self.faults[number]
        drawn = random.Random(f"{self.seed}:{number}").random()
        for kind, rate in self.rates.items():
            if drawn < rate:
                return Fault(kind=kind, retry=self.retry)
            drawn -= rate
        return Fault()

    def sheds(self, number: int) -> Kind | None:
        """How a flex call is turned away; None: it is taken, for better or worse."""
        if random.Random(f"shed:{self.seed}:{number}").random() >= self.shed:
            return None
        return "unavailable" if number % 2 else "rate_limited"

    def poisoned(self, text: str) -> Fault | None:
        """The fault of a passage, None where it is wholesome."""
        return next((one.fault for one in self.poison if one.marker in text), None)
