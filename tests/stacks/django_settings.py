"""A Django project that keeps results of Celery: in its database, or in its cache."""

from __future__ import annotations

import os

DATABASE = "MANIFEST_TEST_STACK_DJANGO"
"""Names the folder of database and cache."""
_FOLDER = os.environ.get(DATABASE, ".")
SECRET_KEY = "for tests"
USE_TZ = True
INSTALLED_APPS = ["django_celery_results"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": f"{_FOLDER}/django.sqlite3",
        "OPTIONS": {"timeout": 20},
    }
}
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": f"{_FOLDER}/cache",
    }
}
