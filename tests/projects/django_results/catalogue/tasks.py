from celery import shared_task
from django.utils.text import slugify

from catalogue.models import Execution, Film


@shared_task
def make_slug(film_id):
    film = Film.objects.get(pk=film_id)
    film.slug = slugify(film.title)
    film.save(update_fields=["slug"])
    return film.slug


@shared_task
def count_films():
    return Film.objects.count()


@shared_task(bind=True)
def note_execution(self):
    execution = Execution(job=self.request.id, text=self.request.id)
    execution.full_clean()
    execution.save(force_insert=True)
    return str(Execution.objects.get(pk=self.request.id).job) == self.request.id
