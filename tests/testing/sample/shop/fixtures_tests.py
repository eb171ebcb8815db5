"""Tests for pytest, with the fixtures of the package."""

import pytest
from django.contrib.auth.models import User

from realtime import user_topic
from shop.models import Order


@pytest.fixture
def order(db):
    return Order.objects.create(customer=User.objects.create_user("ada"))


def test_shipping_is_published(client, order, realtime_events):
    client.post(f"/orders/{order.pk}/ship/")
    realtime_events.assert_published(f"orders.{order.pk}", "shipped")


def test_customer_hears_of_it(client, order, realtime_connect):
    browser = realtime_connect(order.customer)
    browser.subscribe(user_topic(order.customer))
    client.post(f"/orders/{order.pk}/ship/")
    assert browser.receive_event().data == {"order": order.pk}


@pytest.mark.django_db(transaction=True)
def test_real_commits(client, realtime_events):
    order = Order.objects.create(customer=User.objects.create_user("bo"))
    client.post(f"/orders/{order.pk}/ship/")
    client.post(f"/orders/{order.pk}/ship/")
    realtime_events.assert_published(f"orders.{order.pk}", "shipped", count=1)
