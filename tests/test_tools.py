"""The make targets' own logic: what is installed, and what the README's markers mean."""

import pytest

from tools import check_wheel, environment, javascript
from tools.check_wheel import Failure, Step, published, steps

PUBLISH = """<!-- integration: publish -->
```console
python manage.py realtime publish orders.42 shipped '{"eta": 3}'  # a comment
```
"""


def test_a_group_brings_the_groups_it_includes() -> None:
    dev = environment.requirements(["dev"])
    assert set(environment.requirements(["test", "services", "check"])) == set(dev)
    assert len(dev) == len(set(dev))


def test_marked_blocks_are_taken_in_order_and_others_left_alone() -> None:
    readme = (
        "# Title\n```python\nignored\n```\n"
        "<!-- integration: append mysite/settings.py -->\n\n```python\nA = 1\n\nB = 2\n```\n"
        + PUBLISH
    )
    first, last = steps(readme)
    assert first == Step("append", "mysite/settings.py", "A = 1\n\nB = 2\n")
    assert published(last.text) == ("orders.42", "shipped", {"eta": 3})


@pytest.mark.parametrize(
    "readme",
    [
        "",
        PUBLISH + PUBLISH,
        PUBLISH + "<!-- integration: run -->\n```sh\ntrue\n```\n",
        "<!-- integration: append -->\n```python\n```\n" + PUBLISH,
        "<!-- integration: delete a.py -->\n```python\n```\n" + PUBLISH,
        "<!-- integration: run -->\nno block\n" + PUBLISH,
    ],
)
def test_a_readme_that_cannot_be_followed_is_refused(readme: str) -> None:
    with pytest.raises(Failure):
        steps(readme)


def test_a_publish_block_without_the_command_is_refused() -> None:
    with pytest.raises(Failure):
        published("python manage.py migrate\n")


def test_the_readme_can_be_followed() -> None:
    readme = environment.ROOT / "README.md"
    todo = check_wheel.steps(readme.read_text())
    assert published(todo[-1].text)


@pytest.mark.parametrize(
    ("text", "major"), [("v20.20.2\n", 20), ("v8.17.0", 8), ("", 0), ("node: not found", 0)]
)
def test_nodes_version_is_read(text: str, major: int) -> None:
    assert javascript.node_version(text) == major


@pytest.mark.parametrize(
    ("ci", "wanted", "code"), [("", "check", 0), ("true", "check", 1), ("", "build", 1)]
)
def test_only_ci_and_who_asks_for_it_need_node(
    monkeypatch: pytest.MonkeyPatch, ci: str, wanted: str, code: int
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("PATH", "")
    assert javascript.main([wanted]) == code
