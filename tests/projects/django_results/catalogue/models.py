from django.db import models


class Film(models.Model):
    title = models.CharField(max_length=200, unique=True)
    year = models.PositiveIntegerField()
    slug = models.SlugField(blank=True)
