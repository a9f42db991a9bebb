from django.db import models


class Note(models.Model):
    task = models.CharField(max_length=80)
    text = models.TextField()

    class Meta:
        app_label = "audit"
