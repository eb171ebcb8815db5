from django.tasks import task

from realtime import publish
from shop.topics import ReportTopic


@task
def make_report(user_id):
    topic = ReportTopic(user=user_id)
    for percent in (0, 25, 50, 75):
        publish(topic, "progress", {"percent": percent})
    publish(topic, "ready", {"url": "/reports/7/"})
