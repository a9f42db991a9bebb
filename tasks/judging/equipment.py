"""Open what a judge's batch works with: the database, the judge and its rubric."""

from __future__ import annotations

from pytest_manifest.errors import ManifestToolError
from tasks.environment import from_environment
from tasks.filling.settings import FillingSettings
from tasks.judging.batch import JudgeBatch
from tasks.judging.checks import CHECKS, OVERLAP, offline_judge
from tasks.judging.grades import Judge
from tasks.judging.model_judge import Asking, ModelJudge
from tasks.judging.order import JudgeOrder
from tasks.judging.rubric import RUBRICS, Rubric
from tasks.judging.settings import Chosen, JudgingSettings
from tasks.movie_bible.per_process import movie_bible
from tasks.text_model.accepting import Accepted
from tasks.text_model.base import STANDARD
from tasks.text_model.choosing import identify, read_settings
from tasks.text_model.per_process import limiter_of, model_of
from tasks.text_model.prices import PriceTable
from tasks.text_model.retrying import RetryPolicy
from tasks.text_model.settings import OFFLINE, TextModelSettings


class JudgeMismatchError(ManifestToolError):
    """The worker has no such judge as the batch was planned for."""


class JudgeNameError(ManifestToolError):
    """The settings name an offline judge that there is none of."""


def identify_judge(chosen: Chosen) -> tuple[str, str]:
    """Return provider and name of a judge, without its key and SDK. Raises as opening it does."""
    if chosen.provider != OFFLINE:
        return identify(model_settings(chosen))
    name = chosen.name or CHECKS
    if offline_judge(name) is None:
        raise JudgeNameError(
            f"there is no offline judge {name!r}; set GAP_FILL_JUDGE_NAME and "
            f"GAP_FILL_SECOND_JUDGE_NAME to {CHECKS} or {OVERLAP}, or leave them unset"
        )
    return OFFLINE, name


def model_settings(chosen: Chosen) -> TextModelSettings:
    """Return the language model's settings with the judge's model instead of the filling's.

    A judge is asked at once, at the standard tier, whatever tier its rows were filled at.
    """
    changes = {
        "choice": chosen.provider,
        "given_name": chosen.name,
        "service_tier": STANDARD,
    }
    return read_settings().model_copy(update=changes)


def equip_judge(order: JudgeOrder) -> JudgeBatch:
    """Open what the order asks for. Raises errors with a sentence where this worker cannot."""
    settings = from_environment(JudgingSettings)
    planned = order.judge.provider, order.judge.name
    known = {identify_judge(one): one for one in settings.chosen}
    if planned not in known:
        here = " and ".join(f"{name} ({provider})" for provider, name in known)
        raise JudgeMismatchError(
            f"the batch was planned for the judge {planned[1]} ({planned[0]}), and this worker is "
            f"set up for {here}; nothing was asked: set GAP_FILL_JUDGE, GAP_FILL_SECOND_JUDGE and "
            "their names alike where it is planned and where it is run"
        )
    rubric = RUBRICS.load(order.rubric, settings.rubrics)
    RUBRICS.refuse_another(rubric, order.rubric_digest)
    judge = open_judge(known[planned], rubric, order.judge.accepted)
    return JudgeBatch(movie_bible(), judge, rubric)


def open_judge(chosen: Chosen, rubric: Rubric, accepted: Accepted) -> Judge:
    """Open a judge: an offline one, or a language model that grades by the rubric.

    ``accepted`` says which models' answers count.
    """
    _, name = identify_judge(chosen)
    if chosen.provider == OFFLINE and (judge := offline_judge(name)) is not None:
        return judge
    settings, filling = model_settings(chosen), from_environment(FillingSettings)
    return ModelJudge(
        model_of(settings),
        rubric,
        PriceTable.load(settings.prices),
        accepted,
        limiter=limiter_of(settings),
        policy=RetryPolicy.of(settings),
        asking=Asking(
            concurrency=settings.concurrency,
            per_call=filling.per_call,
            asks_alone=filling.asks_alone,
            timeout=settings.times().timeout,
        ),
    )
