"""The logic behind the make targets: what is installed, and how documents are followed."""

import sys
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.services import require
from tools import check_wheel, environment, javascript
from tools.check_wheel import publish_step, published
from tools.following import Site, Step, steps
from tools.windows import Failure, two_windows

PUBLISH = """<!-- integration: publish -->
```console
python manage.py realtime publish orders.42 shipped '{"eta": 3}'  # a comment
```
"""


def test_a_group_contains_the_groups_it_includes() -> None:
    dev = environment.requirements(["dev"])
    assert set(environment.requirements(["test", "services", "check"])) == set(dev)
    assert len(dev) == len(set(dev))


def test_marked_steps_are_found_in_order_and_other_blocks_ignored() -> None:
    text = (
        "# Title\n```python\nignored\n```\n"
        "<!-- integration: append mysite/settings.py -->\n\n```python\nA = 1\n\nB = 2\n```\n"
        "<!-- integration: see Two words -->\n```python\nignored\n```\n"
        "<!-- integration: stop -->\n" + PUBLISH
    )
    first, see, stop, last = steps(text, "a.md")
    assert first == Step("append", "mysite/settings.py", "A = 1\n\nB = 2\n")
    assert see == Step("see", "Two words", "")
    assert stop == Step("stop", "", "")
    assert published(last.text) == ("orders.42", "shipped", {"eta": 3})


@pytest.mark.parametrize(
    "text",
    [
        "<!-- integration: append -->\n```python\n```\n",
        "<!-- integration: delete a.py -->\n```python\n```\n",
        "<!-- integration: run -->\nno block\n",
        "<!-- integration: run twice -->\n```console\ntrue\n```\n",
        "<!-- integration: see -->\n",
        "<!-- integration: stop now -->\n",
        "<!-- integration:stop -->\n",
    ],
)
def test_a_malformed_marker_is_refused(text: str) -> None:
    with pytest.raises(Failure, match=r"a\.md"):
        steps(text, "a.md")


@pytest.mark.parametrize("text", ["", PUBLISH + PUBLISH])
def test_a_document_without_exactly_one_publish_block_is_refused(text: str) -> None:
    with pytest.raises(Failure):
        publish_step(steps(text, "a.md"))


def test_a_publish_block_without_the_command_is_refused() -> None:
    with pytest.raises(Failure):
        published("python manage.py migrate\n")


@pytest.mark.parametrize("document", check_wheel.DOCUMENTS)
def test_every_document_is_checked_in_a_browser(document: str) -> None:
    todo = steps((environment.ROOT / document).read_text(), document)
    assert {"serve", "open", "see"} <= {step.action for step in todo}


def test_the_readme_has_a_publish_command() -> None:
    readme = (environment.ROOT / "README.md").read_text()
    assert published(publish_step(steps(readme, "README.md")).text)


@pytest.mark.parametrize("path", ["/etc/motd", "../outside.py", "missing.py"])
def test_nothing_is_written_outside_the_project(tmp_path: Path, path: str) -> None:
    site = Site(tmp_path / "env", tmp_path / "site", "a.md")
    with pytest.raises(Failure, match=path):
        site.follow([Step("append", path, "text")], None)
    assert list(tmp_path.rglob("*.py")) == []


def test_a_failure_includes_the_log_of_the_documents_server(tmp_path: Path) -> None:
    site = Site(Path(sys.prefix), tmp_path / "site", "a.md")
    (site.project / "manage.py").write_text("raise SystemExit('out of order')")
    with pytest.raises(Failure, match="out of order"):
        site.follow([Step("serve", "python manage.py runserver", "")], None)


@pytest.mark.parametrize(("ci", "fails"), [("", False), ("true", True)])
def test_a_missing_browser_fails_only_in_ci(
    monkeypatch: pytest.MonkeyPatch, ci: str, fails: bool
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("PATH", "")
    expected = pytest.raises(Failure, match="apt install") if fails else nullcontext()
    with expected, two_windows("http://127.0.0.1:9", "ada", "secret") as windows:
        assert windows is None


def test_windows_report_what_they_show_and_what_went_wrong(chromium: str, tmp_path: Path) -> None:
    require(find_spec("playwright"), "Playwright: pip install playwright")
    page = tmp_path / "page.html"
    page.write_text("<p>One</p><script>setTimeout(() => { throw new Error('oops'); })</script>")
    with two_windows("http://127.0.0.1:9", "ada", "secret") as windows:
        assert windows is not None
        for window in windows.pages:
            window.goto(page.as_uri())
        windows.do("see", "One")
        windows.do("gone", "Two")
        windows.pages[0].set_default_timeout(100)
        with pytest.raises(Failure, match="window 1 should have 'Two' visible"):
            windows.do("see", "Two")
        with pytest.raises(Failure) as failure:  # the browser may report them in any order
            windows.check()
        assert "oops" in str(failure.value)
        assert "loaded again" in str(failure.value)


@pytest.mark.parametrize(
    ("text", "major"), [("v20.20.2\n", 20), ("v8.17.0", 8), ("", 0), ("node: not found", 0)]
)
def test_the_version_of_node_is_parsed(text: str, major: int) -> None:
    assert javascript.node_version(text) == major


@pytest.mark.parametrize(
    ("ci", "command", "code"), [("", "check", 0), ("true", "check", 1), ("", "build", 1)]
)
def test_missing_node_fails_only_in_ci_and_in_make_js(
    monkeypatch: pytest.MonkeyPatch, ci: str, command: str, code: int
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("PATH", "")
    assert javascript.main([command]) == code
