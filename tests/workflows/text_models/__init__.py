"""The contract of a language model: what every TextModel must pass, also one of your own.

A module of tests has a class for the model, with the rig that opens it and plays its service::

    class TestMine(ServiceContract):
        rig = Rig({"choice": "mine:open_model", "given_name": "mine-1"}, my_server, secret="k-1")
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.workflows.text_models.contract")

from tests.workflows.text_models.contract import CLASSES, ModelContract, ServiceContract  # noqa: E402
from tests.workflows.text_models.rig import Received, Rig, Service  # noqa: E402

__all__ = ["CLASSES", "ModelContract", "Received", "Rig", "Service", "ServiceContract"]
