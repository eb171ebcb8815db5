"""Tests that open a page in a browser."""

import os

from channels.testing import ChannelsLiveServerTestCase
from django.contrib.auth.models import User
from playwright.sync_api import expect, sync_playwright


class InboxTests(ChannelsLiveServerTestCase):
    @classmethod
    def setUpClass(cls):
        # Playwright runs an event loop in the thread of the tests.
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
        super().setUpClass()
        playwright = cls.enterClassContext(sync_playwright())
        path = os.environ.get("CHROMIUM")  # None: the browser of `playwright install`
        cls.browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        cls.addClassCleanup(cls.browser.close)

    def test_an_event_appears_on_the_page(self):
        user = User.objects.create_user("ada")
        self.client.force_login(user)
        session = self.client.cookies["sessionid"].value
        page = self.browser.new_page()
        page.context.add_cookies(
            [{"name": "sessionid", "value": session, "url": self.live_server_url}]
        )
        page.goto(self.live_server_url)
        page.click("text=Report")
        expect(page.locator("#inbox")).to_have_text("report.pdf")

    def test_the_next_test_starts_with_an_empty_database(self):
        self.test_an_event_appears_on_the_page()
