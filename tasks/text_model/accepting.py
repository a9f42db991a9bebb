"""Decide whether an answer is of the model that was asked for, by the name that it gives itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from tasks.text_model.base import Billed
from tasks.text_model.failures import OtherModel

UNNAMED: Final = "unnamed"
"""Accepted as a name, it lets answers pass that name no model."""

VERSION: Final = re.compile(r"-\d{3}$")
"""The end of a name that stands for a version of the same model, at the same price."""


def same_model(answered: str, asked: str) -> bool:
    """Return whether an answer under the name ``answered`` is of the model ``asked``.

    That is the very name, or a version of it (``-001``); ``-latest`` of what was asked and
    ``models/`` do not count.
    """
    name = answered.removeprefix("models/")
    wanted = asked.removeprefix("models/").removesuffix("-latest")
    return bool(name) and wanted in {name, VERSION.sub("", name)}


@dataclass(frozen=True, slots=True)
class Accepted:
    """The model that was planned, and the names of others that may answer instead."""

    planned: str
    others: tuple[str, ...] = ()

    def takes(self, answered: str) -> bool:
        """Return whether an answer under this name counts; "" is one without a name."""
        if not answered:
            return UNNAMED in self.others
        return any(same_model(answered, one) for one in (self.planned, *self.others))

    def refusal(self, billed: Billed) -> OtherModel:
        """Return the failure that an answer under another name is."""
        who = billed.model or "a model without a name"
        name = billed.model or UNNAMED
        return OtherModel(
            f"{who} answered, and {self.planned} was asked: the answer is not used, though it is "
            f"paid; plan for a model that there is (TEXT_MODEL_NAME), or accept this one "
            f"(TEXT_MODEL_ACCEPT={name}) and plan anew",
            billed=billed,
        )
