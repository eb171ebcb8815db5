"""A page that follows its user's topic, and a view that publishes to it."""

from django.http import HttpResponse
from django.shortcuts import render

from realtime import publish, user_topic


def inbox(request):
    """Show the page."""
    return render(request, "inbox.html")


def report(request):
    """Make a report, and tell the user's pages."""
    publish(user_topic(request.user), "ready", {"name": "report.pdf"})
    return HttpResponse(status=204)
