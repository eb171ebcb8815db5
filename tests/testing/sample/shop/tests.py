"""Tests for Django's runner and for pytest."""

from django.contrib.auth.models import User
from django.test import TestCase

from realtime import user_topic
from realtime.exceptions import CommandRefused
from realtime.testing import RealtimeClient, capture_events
from shop.models import Order


class ShipTests(TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.ada = User.objects.create_user("ada")
        cls.bo = User.objects.create_user("bo")
        cls.order = Order.objects.create(customer=cls.ada)

    def ship(self):
        return self.client.post(f"/orders/{self.order.pk}/ship/")

    def test_shipping_is_published_with_its_commit(self):
        with capture_events() as events:
            self.ship()
        self.order.refresh_from_db()
        events.assert_published(
            f"orders.{self.order.pk}", "shipped", {"at": self.order.shipped_at}, count=1
        )
        events.assert_published(user_topic(self.ada), "on-its-way", {"order": self.order.pk})

    def test_what_is_rolled_back_is_not_published(self):
        self.ship()
        with capture_events() as events:
            self.assertEqual(self.ship().status_code, 409)
        events.assert_not_published()

    def test_customer_hears_of_it_and_nobody_else(self):
        with RealtimeClient(self.ada) as ada, RealtimeClient(self.bo) as bo:
            ada.subscribe(f"orders.{self.order.pk}")
            with self.assertRaises(CommandRefused):
                bo.subscribe(f"orders.{self.order.pk}")
            self.ship()
            self.assertEqual(ada.receive_event().name, "shipped")
            self.assertEqual(ada.call(f"orders.{self.order.pk}", "state"), {"shipped": True})
            ada.publish(f"orders.{self.order.pk}", "looking")
            self.assertEqual(ada.receive_event().name, "looking")
            bo.assert_no_event()

    def test_who_looks_at_an_order_is_seen_by_name(self):
        topic = f"orders.{self.order.pk}"
        with RealtimeClient(self.ada) as ada:
            ada.subscribe(topic)
            (member,) = ada.members(topic)
            self.assertEqual(member.user, str(self.ada.pk))
            self.assertEqual(member.info, {"name": "Ada"})

    async def test_coroutine(self):
        async with capture_events() as events, RealtimeClient(self.ada) as ada:
            await ada.asubscribe(f"orders.{self.order.pk}")
            await self.async_client.post(f"/orders/{self.order.pk}/ship/")
            self.assertEqual((await ada.areceive_event()).name, "shipped")
        events.assert_published(f"orders.{self.order.pk}", "shipped")
