from celery import shared_task


@shared_task(bind=True)
def mark(self, pupil: str) -> dict[str, object]:
    """Note a pupil's mark, and have the parents written to."""
    letter = write.delay(pupil)
    return {"noted": self.note(pupil) > 0, "letter": type(letter).__name__}


@shared_task
def write(pupil: str) -> str:
    return f"Dear parents of {pupil}"
