"""Each model under the contract of the seam: real packages against servers of their wire."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import pytest
from pydantic import JsonValue, SecretStr

from tasks.filling.asking import Asker
from tasks.filling.batch import Batch, Limits
from tasks.filling.order import PlannedModel
from tasks.filling.writing import Provenance
from tasks.text_model import failures
from tasks.text_model.base import TextModel
from tasks.text_model.choosing import open_model
from tasks.text_model.failures import TextModelError
from tasks.text_model.limits import NoLimit
from tasks.text_model.prices import PriceTable
from tasks.text_model.retrying import RetryPolicy
from tasks.text_model.settings import GOOGLE_GENAI, GOOGLE_GENERATIVEAI, OFFLINE
from tests.workflows.filling_support import PROMPT, bible_at, documents, order
from tests.workflows.gemini_server import KEY, gemini_server
from tests.workflows.gemini_support import nobody_else as nobody_else
from tests.workflows.openai_server import openai_server
from tests.workflows.text_models import CLASSES, ModelContract, Rig, Service, ServiceContract
from tests.workflows.text_models.contract import REQUEST, SETTINGS

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("nobody_else")]

OPENAI: Final = "tasks.text_model.openai_compatible:open_model"
STREAMED: Final = frozenset({"cut_stream", "stalled_stream"})
GEMINI: Final = {"key": SecretStr(KEY)}


@pytest.mark.ring(1)
class TestOffline(ModelContract):
    rig = Rig({"choice": OFFLINE})


class TestGoogleGenai(ServiceContract):
    rig = Rig(
        {**GEMINI, "choice": GOOGLE_GENAI},
        gemini_server,
        secret=KEY,
        names=("gemini-2.0-flash", "gemini-2.5-pro", "gemini-3.8-flash", "gemini-flash-latest"),
    )


class TestGoogleGenaiStreamed(ServiceContract):
    rig = Rig(
        {**GEMINI, "choice": GOOGLE_GENAI, "stream": True},
        gemini_server,
        secret=KEY,
        names=("gemini-2.5-flash",),
    )


class TestGoogleGenerativeai(ServiceContract):
    rig = Rig(
        {**GEMINI, "choice": GOOGLE_GENERATIVEAI},
        gemini_server,
        secret=KEY,
        names=("gemini-2.0-flash", "gemini-2.5-pro", "gemini-3.8-flash", "gemini-flash-latest"),
    )


class TestGoogleGenerativeaiStreamed(ServiceContract):
    rig = Rig(
        {**GEMINI, "choice": GOOGLE_GENERATIVEAI, "stream": True},
        gemini_server,
        secret=KEY,
        names=("gemini-2.5-flash",),
    )


class TestOpenAICompatible(ServiceContract):
    rig = Rig(
        # A key of another service, which must not be sent to this one.
        {"choice": OPENAI, "given_name": "small-1", "key": SecretStr("of-gemini")},
        openai_server,
        secret=KEY,
        environment={"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": ""},
        names=("o4-mini", "gpt-5-mini", "gpt-4.1-mini", "vendor/own:8b"),
        cannot=STREAMED | {"no_thinking"},
    )

    def test_a_model_that_declines_has_withheld_its_answer(
        self, model: TextModel, service: Service
    ) -> None:
        """The sentence has its words."""
        service.use({"faults": [{"kind": "blocked_answer", "reason": "REFUSAL"}]})
        with pytest.raises(failures.AnswerBlocked, match="I can't help with that"):
            model.generate(REQUEST)

    @pytest.mark.parametrize("name", SETTINGS)
    def test_a_setting_that_it_has_no_word_for_is_refused(self, url: str, name: str) -> None:
        """And not passed over, as the plan would be for something else."""
        with pytest.raises(
            TextModelError, match=r"TEXT_MODEL_\w+ is set, for which small-1 has no"
        ):
            open_model(self.rig.settings_at(url, **SETTINGS[name]))

    def test_a_model_that_thinks_is_told_how_much(self, url: str) -> None:
        """The server takes that of no other model."""
        name = {"given_name": "gpt-5-mini"}
        model = open_model(self.rig.settings_at(url, **name, thinking_level="low"))
        assert model.generate(REQUEST).text
        model.close()

    def test_the_address_beside_the_key_goes_first(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """TEXT_MODEL_BASE_URL may be that of another service, whose model is graded."""
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        model = open_model(self.rig.settings_at("http://127.0.0.1:1/v1"))
        assert model.generate(REQUEST).text
        model.close()

    @pytest.mark.parametrize(
        ("missing", "told"), [("key", "set OPENAI_API_KEY"), ("name", "set TEXT_MODEL_NAME")]
    )
    def test_what_is_missing_is_told(
        self, monkeypatch: pytest.MonkeyPatch, missing: str, told: str
    ) -> None:
        """The key of Gemini and its default model are none for another service."""
        if missing == "key":
            monkeypatch.delenv("OPENAI_API_KEY")
        changes: dict[str, object] = {"given_name": None} if missing == "name" else {}
        with pytest.raises(TextModelError, match=told):
            open_model(self.rig.settings_at(None, **changes))

    def test_a_missing_package_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """By the sentence for factories that cannot be imported."""
        monkeypatch.setitem(sys.modules, "openai", None)
        monkeypatch.delitem(sys.modules, OPENAI.partition(":")[0], raising=False)
        with pytest.raises(TextModelError, match=r"cannot be imported: .*openai"):
            open_model(self.rig.settings_at(None))


@pytest.mark.ring(1)
@pytest.mark.parametrize(
    "rig", [one.rig for one in ServiceContract.__subclasses__() if one.__module__ == __name__]
)
def test_every_fault_is_tried_with_every_model(rig: Rig) -> None:
    """But for those that its wire has no form for."""
    assert rig.cannot <= set(CLASSES)
    assert len(rig.cannot) <= 3
    assert os.environ.get("OPENAI_API_KEY") != KEY, "a rig's environment lasts for a test"


@pytest.mark.ring(1)
def test_a_batch_is_filled_by_a_model_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows name it, and without a price the batch tells tokens and no cost."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    passages = documents(20)
    ids = [one.id for one in passages]
    faults: dict[str, JsonValue] = {"faults": ["unavailable", "malformed_json"]}
    with openai_server(faults) as server, bible_at(tmp_path, passages) as bible:
        model = open_model(TestOpenAICompatible.rig.settings_at(server.url))
        planned = PlannedModel(provider=model.provider, name=model.name)
        policy = RetryPolicy(attempts=9, first_wait=0.0)
        asker = Asker(model, NoLimit(), policy, PriceTable.load(), PROMPT, planned.accepted)
        limits = Limits(concurrency=4, per_call=5, asks_alone=3, timeout=20.0)
        batch = Batch(bible, asker, limits, Provenance("R", "E", 1), lambda _: None)
        batch.run(ids, order(model=planned))
        model.close()
        rows = bible.annotations(ids, PROMPT.version)
        assert sorted(rows) == sorted(ids)
        named = {(row.provider, row.model, row.answered_by) for row in rows.values()}
        assert named == {("openai-compatible", "small-1", "small-1")}
        report = batch.report
        assert report.failures == {"unavailable": 1, "malformed_answer": 1}
        assert (report.spent.tokens_in, report.spent.tokens_out) == server.billed
        assert report.spent.unpriced_in == server.billed[0]
        assert asker.price is None
