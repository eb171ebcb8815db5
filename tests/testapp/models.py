from django.db import models


class Note(models.Model):
    """A row that a transaction writes in addition to what it publishes."""

    text = models.CharField(max_length=200)
    body = models.TextField(blank=True, default="")

    def __str__(self) -> str:
        return self.text
