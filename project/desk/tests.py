"""Tests of the demo's views, admin and command; run them with `manage.py test project`."""

import asyncio
import json
from io import StringIO
from pathlib import Path

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.staticfiles import finders
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.core.management import call_command
from django.test import Client, SimpleTestCase, TransactionTestCase, override_settings

from project.browsers import SeparateBrowsers
from project.desk import topics, views
from project.desk.models import Order
from project.desk.source import shown_lines
from realtime import user_topic
from realtime.log import head, history


def load_demo() -> str:
    output = StringIO()
    call_command("load_demo", stdout=output)
    return output.getvalue()


def published(topic: object) -> list[tuple[str, object]]:
    return [(event.name, json.loads(event.json)) for event in history(str(topic))]


FAST = ["django.contrib.auth.hashers.MD5PasswordHasher"]


class Demo(TransactionTestCase):
    """A base class that loads the sample data and has a client for each of the two browsers."""

    def setUp(self) -> None:
        load_demo()
        self.order = Order.objects.get(item="Copper wire")
        self.customer = Client(SCRIPT_NAME="/customer")
        self.desk = Client(SCRIPT_NAME="/desk")
        for browser in (self.customer, self.desk):
            browser.get("/")

    def user(self, name: str) -> object:
        return get_user_model().objects.get(username=name)


@override_settings(DEBUG=True, PASSWORD_HASHERS=FAST)  # the runner turns DEBUG off
class DeskTests(Demo):
    def test_shipping_saves_and_publishes_once(self) -> None:
        for _ in range(2):
            answer = self.desk.post(f"/orders/{self.order.pk}/ship/")
            assert answer.status_code == 302
        self.order.refresh_from_db()
        assert self.order.state == "shipped"
        assert published(self.order.topic) == [("shipped", self.order.as_data())]
        assert self.order.version == 1

    def test_an_order_can_be_reopened(self) -> None:
        for verb in ("ship", "reopen", "ship"):
            self.desk.post(f"/orders/{self.order.pk}/{verb}/")
        names = [name for name, _ in published(self.order.topic)]
        assert names == ["shipped", "reopened", "shipped"]

    def test_shipping_needs_staff_a_post_a_csrf_token_and_an_existing_order(self) -> None:
        path = f"/orders/{self.order.pk}/ship/"
        assert self.desk.get(path).status_code == 405
        assert self.customer.post(path).status_code == 403
        assert Client(enforce_csrf_checks=True).post(path).status_code == 403
        assert self.desk.post("/orders/999999/ship/").status_code == 404
        assert published(self.order.topic) == []

    def test_a_placed_order_is_published_to_the_desk_and_to_its_customer(self) -> None:
        self.customer.post("/orders/place/")
        order = Order.objects.latest("pk")
        assert order.customer == self.user("ada")
        for topic in ("desk", user_topic(self.user("ada"))):
            assert published(topic) == [("placed", order.as_data())]

    def test_only_staff_can_send_notices(self) -> None:
        data = {"to": "bo", "text": "x" * 1000}
        for path in ("/notify/", "/notify/everyone/"):
            assert self.customer.post(path, data).status_code == 403
            assert self.desk.post(path, data).status_code == 302
        notice = {"from": "Dana", "text": "x" * 200}
        for topic in (user_topic(self.user("bo")), "everyone"):
            assert published(topic) == [("notice", notice)]
        assert self.desk.post("/notify/", {"to": "nobody"}).status_code == 404

    def test_only_the_customer_can_ask_for_news(self) -> None:
        topic = topics.OrderTopic(pk=self.order.pk)
        for _ in range(2):
            assert topic.ask(self.user("ada"), None)["asked"] is True
        assert [name for name, _ in published(topic)] == ["asked"]
        with self.assertRaisesMessage(PermissionDenied, "only the customer can ask"):
            topic.ask(self.user("dana"), None)
        with self.assertRaisesMessage(Order.DoesNotExist, ""):
            topic.ask(self.user("bo"), None)

    def test_only_its_customer_and_the_staff_can_follow_an_order(self) -> None:
        topic = topics.OrderTopic(pk=self.order.pk)
        allowed = {name: topic.can_subscribe(self.user(name)) for name in ("ada", "bo", "eli")}
        assert allowed == {"ada": True, "bo": False, "eli": True}
        assert not topics.DeskTopic().can_subscribe(self.user("ada"))
        assert not topic.anonymous

    def test_the_page_has_the_cursor_of_each_topic_that_it_shows(self) -> None:
        self.desk.post(f"/orders/{self.order.pk}/ship/")
        answer = self.desk.get("/")
        cursor = head(self.order.topic)
        self.assertContains(answer, f'name="{self.order.topic}" since="{cursor}"', 1)
        for order in Order.objects.all():
            self.assertContains(answer, f'data-order="{order.pk}"', 1)
        assert "no-store" in answer.headers["Cache-Control"]

    def test_a_customer_sees_only_their_own_orders(self) -> None:
        for order in Order.objects.all():
            count = int(order.customer == self.user("ada"))
            self.assertContains(self.customer.get("/"), f'data-order="{order.pk}"', count)
        orders = self.customer.get("/orders.json").json()["orders"]
        assert {order["customer"] for order in orders} == {"Ada"}
        assert len(self.desk.get("/orders.json").json()["orders"]) == Order.objects.count()

    def test_the_pages_have_a_strict_policy(self) -> None:
        for browser, ancestors in [(self.client, "'none'"), (self.desk, "'self'")]:
            answer = browser.get("/")
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'self'; ")
            assert policy.endswith(f"frame-ancestors {ancestors}")
            for inline in ("<style", " style=", " onclick=", "<script>"):
                self.assertNotContains(answer, inline)
        assert self.client.get("/").headers["X-Frame-Options"] == "DENY"
        assert "'none'" in self.desk.get("/admin/").headers["Content-Security-Policy"]

    def test_the_shown_code_is_the_source_of_the_views(self) -> None:
        shown = {key: lines for key, _, lines in self.desk.get("/").context["code"]}
        source = Path(views.__file__).read_text()
        for key, lines in shown.items():
            for line in lines.splitlines():
                assert f"{line}\n" in source, f"{key}: {line}"
            assert "publish(" in lines
            assert len(lines.splitlines()) <= 3
        assert shown["notify-everyone"] == 'publish("everyone", "notice", data)'
        with self.assertRaisesMessage(LookupError, "orders has no lines"):
            shown_lines(views.orders)

    def test_favicon_ico_redirects_to_an_icon(self) -> None:
        answer = self.client.get("/favicon.ico")
        assert answer.status_code == 302
        assert finders.find(answer.url.removeprefix("/static/")) is not None

    def test_the_admin_publishes_only_changed_orders(self) -> None:
        path = f"/admin/desk/order/{self.order.pk}/change/"
        form = {"customer": self.order.customer_id, "item": "Copper wire", "state": "open"}
        assert self.desk.post(path, form).status_code == 302
        assert published(self.order.topic) == []
        assert self.desk.post(path, {**form, "state": "shipped"}).status_code == 302
        assert self.desk.post(path, {**form, "state": "shipped", "item": "Wire"}).status_code == 302
        self.order.refresh_from_db()
        names = [name for name, _ in published(self.order.topic)]
        assert names == ["shipped", "changed"]
        assert published(self.order.topic)[-1][1] == self.order.as_data()

    def test_only_users_who_can_publish_see_the_announce_link(self) -> None:
        path = "/admin/realtime/logevent/add/"
        assert self.desk.get(path).status_code == 200
        self.assertContains(self.desk.get("/"), 'id="announce"', 1)
        self.desk.post("/persona/", {"persona": "eli"})
        assert self.desk.get(path).status_code == 403
        self.assertNotContains(self.desk.get("/"), 'id="announce"')

    def test_the_admin_action_publishes_the_selected_orders(self) -> None:
        action = {"action": "publish_selected", "_selected_action": [self.order.pk]}
        assert self.desk.post("/admin/desk/order/", action).status_code == 302
        assert published(self.order.topic) == [("changed", self.order.as_data())]


class PersonaTests(Demo):
    def test_the_first_visit_signs_in_the_first_persona(self) -> None:
        for browser, name in [(self.customer, "ada"), (self.desk, "dana")]:
            assert browser.get("/").context["user"] == self.user(name)
        assert "_auth_user_id" not in self.client.session

    def test_one_click_switches_the_persona_and_a_visitor_stays_signed_out(self) -> None:
        for key in ("bo", "visitor"):
            self.customer.post("/persona/", {"persona": key})
            assert self.customer.get("/").context["persona"] == key
        assert self.customer.post("/orders/place/").status_code == 403
        assert self.customer.post("/persona/", {"persona": "admin"}).status_code == 404

    @override_settings(DEMO_PERSONAS=False)
    def test_without_the_setting_no_user_is_signed_in(self) -> None:
        browser = Client(SCRIPT_NAME="/desk")
        assert not browser.get("/").context["user"].is_authenticated
        assert browser.post("/persona/", {"persona": "dana"}).status_code == 404

    def test_a_public_site_does_not_start_with_personas(self) -> None:
        config = apps.get_app_config("desk")
        with override_settings(ALLOWED_HOSTS=["shop.example"]):
            with self.assertRaisesMessage(ImproperlyConfigured, "shop.example"):
                config.ready()
            with override_settings(DEMO_PERSONAS=False):
                config.ready()

    def test_the_personas_have_no_password(self) -> None:
        users = get_user_model().objects.exclude(username="admin")
        assert users.count() == 4
        assert not any(user.has_usable_password() for user in users)


class BrowserTests(SimpleTestCase):
    def request(self, path: str, root: str = "") -> tuple[dict, list]:
        """Return the scope that the site received, and the headers that the browser received."""
        received: dict = {}
        sent: list = []

        async def site(scope, receive, send) -> None:
            received.update(scope)
            headers = [(b"Set-Cookie", b"session=new; Path=/"), (b"X", b"y")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})

        async def send(message) -> None:
            sent.extend(message["headers"])

        cookies = b"session=0; customer.session=1; desk.session=2; desk.csrf=3"
        scope = {"type": "http", "path": root + path, "headers": [(b"cookie", cookies)]}
        scope["root_path"] = root
        asyncio.run(SeparateBrowsers(site, ("customer", "desk"))(scope, None, send))
        return received, sent

    def test_each_browser_has_its_own_cookies_and_root(self) -> None:
        for path, cookies, root, prefix in [
            ("/", b"session=0", "", b""),
            ("/admin/", b"session=0", "", b""),
            ("/desktop/", b"session=0", "", b""),
            ("/customer/x/", b"session=1", "/customer", b"customer."),
            ("/desk", b"session=2; csrf=3", "/desk", b"desk."),
        ]:
            for outer in ("", "/mounted"):
                scope, sent = self.request(path, outer)
                assert scope["headers"] == [(b"cookie", cookies)]
                assert scope["root_path"] == outer + root
                assert scope["path"] == outer + path
                assert sent == [(b"Set-Cookie", prefix + b"session=new; Path=/"), (b"X", b"y")]


@override_settings(PASSWORD_HASHERS=FAST)
class LoadDemoTests(TransactionTestCase):
    @override_settings(DEBUG=True)
    def test_a_second_run_changes_nothing(self) -> None:
        load_demo()
        Order.objects.first().change(state="shipped")
        before = list(Order.objects.values()), list(get_user_model().objects.values())
        output = load_demo()
        assert before == (list(Order.objects.values()), list(get_user_model().objects.values()))
        assert "admin, password admin" in output

    @override_settings(DEBUG=True)
    def test_a_changed_password_is_kept_and_not_printed(self) -> None:
        load_demo()
        admin = get_user_model().objects.get(username="admin")
        admin.set_password("my own")
        admin.save()
        assert "password admin" not in load_demo()
        admin.refresh_from_db()
        assert admin.check_password("my own")

    @override_settings(DEBUG=False)
    def test_without_debug_there_is_no_account_with_a_known_password(self) -> None:
        load_demo()
        assert Order.objects.exists()
        assert not get_user_model().objects.filter(username="admin").exists()
