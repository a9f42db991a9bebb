"""Open models and their limits once a process, and keep them while the settings stay the same."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from tasks.text_model.base import TextModel
from tasks.text_model.choosing import open_limiter, open_model
from tasks.text_model.limits import Limiter
from tasks.text_model.settings import TextModelSettings

KEPT: Final = 3
"""The model that fills, and those of two judges."""


@lru_cache(maxsize=KEPT)
def model_of(settings: TextModelSettings) -> TextModel:
    """Return the model that the settings choose. Raises TextModelError."""
    return open_model(settings)


@lru_cache(maxsize=KEPT)
def limiter_of(settings: TextModelSettings) -> Limiter:
    """Return the limits of the settings' model. Raises TextModelError."""
    return open_limiter(settings, model_of(settings))
