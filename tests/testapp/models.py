from django.db import models


class Note(models.Model):
    """Something a caller's own transaction writes beside what it publishes."""

    text = models.CharField(max_length=200)
    body = models.TextField(blank=True, default="")

    def __str__(self) -> str:
        return self.text
