"""The demo's views, admin and command; `manage.py test project` runs them."""

import json
from io import StringIO

from django.contrib.auth import get_user_model
from django.contrib.staticfiles import finders
from django.core.management import call_command
from django.test import Client, TransactionTestCase, override_settings

from project.desk.models import Order
from realtime.log import head, history


def load_demo() -> str:
    output = StringIO()
    call_command("load_demo", stdout=output)
    return output.getvalue()


FAST = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@override_settings(DEBUG=True, PASSWORD_HASHERS=FAST)  # the runner turns DEBUG off
class DeskTests(TransactionTestCase):
    def setUp(self) -> None:
        load_demo()
        self.order = Order.objects.get(item="Notebook")

    def published(self) -> list[tuple[str, object]]:
        events = history(self.order.topic)
        return [(event.name, json.loads(event.json)) for event in events]

    def test_shipping_saves_and_publishes_once(self) -> None:
        for _ in range(2):
            answer = self.client.post(f"/orders/{self.order.pk}/ship/")
            self.assertRedirects(answer, "/")
        self.order.refresh_from_db()
        assert self.order.state == "shipped"
        data = {"order": self.order.pk, "state": "shipped", "version": 1}
        assert self.published() == [("shipped", data)]

    def test_an_order_can_be_opened_again(self) -> None:
        for verb in ("ship", "reopen", "ship"):
            self.client.post(f"/orders/{self.order.pk}/{verb}/")
        names = [name for name, _ in self.published()]
        assert names == ["shipped", "reopened", "shipped"]

    def test_shipping_needs_a_post_with_the_token_and_an_order_that_exists(self) -> None:
        path = f"/orders/{self.order.pk}/ship/"
        assert self.client.get(path).status_code == 405
        assert Client(enforce_csrf_checks=True).post(path).status_code == 403
        assert self.client.post("/orders/999999/ship/").status_code == 404
        assert self.published() == []

    def test_the_page_needs_no_account_and_carries_each_orders_cursor(self) -> None:
        self.client.post(f"/orders/{self.order.pk}/ship/")
        answer = self.client.get("/")
        self.assertContains(answer, f'data-cursor="{head(self.order.topic)}"', 1)
        self.assertContains(answer, "data-order=", Order.objects.count())
        self.assertContains(answer, "publish(order.topic, &quot;shipped&quot;")
        assert "no-store" in answer.headers["Cache-Control"]

    def test_the_page_keeps_a_strict_policy(self) -> None:
        answer = self.client.get("/")
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        for inline in ("<style", " style=", " onclick=", "<script>"):
            self.assertNotContains(answer, inline)

    def test_the_orders_are_there_as_json(self) -> None:
        self.client.post(f"/orders/{self.order.pk}/ship/")
        orders = {
            order["order"]: order for order in self.client.get("/orders.json").json()["orders"]
        }
        assert orders[self.order.pk]["state"] == "shipped"
        assert len(orders) == Order.objects.count()

    def test_an_icon_is_there_for_pages_that_name_none(self) -> None:
        answer = self.client.get("/favicon.ico")
        assert answer.status_code == 302
        assert finders.find(answer.url.removeprefix("/static/")) is not None

    def test_the_admin_publishes_a_changed_state_and_nothing_else(self) -> None:
        assert self.client.login(username="desk", password="desk")
        path = f"/admin/desk/order/{self.order.pk}/change/"
        form = {"customer": "Ada", "item": "Notebook", "state": "open"}
        assert self.client.post(path, form).status_code == 302
        assert self.published() == []
        assert self.client.post(path, {**form, "state": "shipped"}).status_code == 302
        data = {"order": self.order.pk, "state": "shipped", "version": 1}
        assert self.published() == [("shipped", data)]


@override_settings(PASSWORD_HASHERS=FAST)
class LoadDemoTests(TransactionTestCase):
    @override_settings(DEBUG=True)
    def test_a_second_run_changes_nothing(self) -> None:
        load_demo()
        Order.objects.first().set_state("shipped")
        before = list(Order.objects.values()), list(get_user_model().objects.values())
        output = load_demo()
        assert before == (list(Order.objects.values()), list(get_user_model().objects.values()))
        assert "admin  password admin" in output

    @override_settings(DEBUG=True)
    def test_a_changed_password_is_kept_and_not_told_wrongly(self) -> None:
        load_demo()
        admin = get_user_model().objects.get(username="admin")
        admin.set_password("my own")
        admin.save()
        assert "password admin" not in load_demo()
        admin.refresh_from_db()
        assert admin.check_password("my own")

    @override_settings(DEBUG=False)
    def test_there_are_no_accounts_without_debug(self) -> None:
        load_demo()
        assert Order.objects.exists()
        assert not get_user_model().objects.exists()
