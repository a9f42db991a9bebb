from celery import shared_task
from django.utils.text import slugify

from catalogue.models import Film


@shared_task
def make_slug(film_id):
    film = Film.objects.get(pk=film_id)
    film.slug = slugify(film.title)
    film.save(update_fields=["slug"])
    return film.slug


@shared_task
def count_films():
    return Film.objects.count()
