from django.db import models


class Film(models.Model):
    title = models.CharField(max_length=200, unique=True)
    year = models.PositiveIntegerField()
    slug = models.SlugField(blank=True)


class Execution(models.Model):
    """What was done by which job; both forms of an id that other tables of shops have."""

    job = models.UUIDField(primary_key=True)
    text = models.CharField(max_length=36)
