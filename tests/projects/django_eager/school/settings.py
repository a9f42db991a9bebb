"""Without a broker all runs at once, in the process that asks for it."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "only for this example"
INSTALLED_APPS = ["audit"]
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"},
}
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

BROKER = os.environ.get("BROKER")
if BROKER:
    CELERY_BROKER_URL = BROKER
CELERY_RESULT_BACKEND = os.environ.get("STORE")
CELERY_TASK_ALWAYS_EAGER = not BROKER
CELERY_TASK_EAGER_PROPAGATES = True
