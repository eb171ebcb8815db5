"""deploy/Dockerfile, compose.yaml and settings.py, as far as they can be tested without Docker.

Their commands run in a new project, with the environment that these files define.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.support.files import DEPLOY, SERVER, daphne_options, replaced
from tests.deploy.support.running import answers
from tests.layers.test_under_the_hub import PUBSUB, layer_settings
from tests.support.server import DEADLINE, free_port
from tests.support.services import require
from tests.support.waiting import wait_until
from tools.environment import ROOT

ASGI = """
from django.core.asgi import get_asgi_application
from realtime.asgi import with_realtime
application = with_realtime(get_asgi_application())
"""
SHOWN = "ALLOWED_HOSTS", "DATABASES", "CHANNEL_LAYERS", "SECRET_KEY", "REALTIME"
SHOW = f"""
import json
from django.conf import settings
print(json.dumps({{name: getattr(settings, name) for name in {SHOWN}}}))
"""


def dockerfile() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, in order."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", "").splitlines()
    return [
        (name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines) if name
    ]


def stage(name: str) -> list[tuple[str, str]]:
    """Return the instructions of one stage."""
    found = dockerfile()
    begin = next(n for n, (_, rest) in enumerate(found) if rest.endswith(f" AS {name}"))
    ends = [n for n, (word, _) in enumerate(found) if word == "FROM" and n > begin]
    return found[begin + 1 : ends[0] if ends else None]


def command(name: str) -> list[str]:
    """Return the words of the site's CMD or HEALTHCHECK."""
    (text,) = (rest for word, rest in stage("site") if word == name)
    words: list[str] = json.loads(text[text.index("[") :])
    return words


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    require(find_spec("yaml"), "PyYAML: pip install pyyaml")
    import yaml

    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new Django project with realtime and with deploy/settings.py as mysite/deployed.py."""
    folder = tmp_path_factory.mktemp("project")
    made = [sys.executable, "-m", "django", "startproject", "mysite", str(folder)]
    subprocess.run(made, check=True, env=environment({"DJANGO_SETTINGS_MODULE": ""}))
    settings = folder / "mysite" / "settings.py"
    more = '\nINSTALLED_APPS.insert(0, "realtime")\nASGI_APPLICATION = "mysite.asgi.application"\n'
    settings.write_text(settings.read_text() + more)
    (folder / "mysite" / "asgi.py").write_text(ASGI)
    (folder / "mysite" / "deployed.py").write_text((DEPLOY / "settings.py").read_text())
    return folder


def environment(more: dict[str, str]) -> dict[str, str]:
    """Return the variables of a container, plus the paths of Python and realtime."""
    own = {"PATH": f"{Path(sys.executable).parent}:{os.defpath}", "PYTHONPATH": str(ROOT)}
    return own | {"DJANGO_SETTINGS_MODULE": "mysite.deployed", "PYTHONUNBUFFERED": "1"} | more


def run(project: Path, script: list[str] | str, env: dict[str, str]) -> str:
    words = ["sh", "-c", script] if isinstance(script, str) else script
    done = subprocess.run(
        words,
        cwd=project,
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=DEADLINE * 3,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_step_that_collects_static_files_needs_no_secret(project: Path, tmp_path: Path) -> None:
    (step,) = (rest for word, rest in stage("site") if word == "RUN" and "manage.py" in rest)
    run(project, step, {"STATIC_ROOT": str(tmp_path)})
    assert (tmp_path / "realtime" / "realtime.js").is_file()


def test_the_site_runs_unprivileged_and_the_proxy_has_its_static_files() -> None:
    words = [word for word, _ in stage("site")]
    (user,) = (rest for word, rest in stage("site") if word == "USER")
    assert user == "mysite"
    assert words.index("USER") > max(n for n, word in enumerate(words) if word in ("RUN", "COPY"))
    copies = [shlex.split(rest) for word, rest in stage("proxy") if word == "COPY"]
    assert ["--from=site", "/srv/mysite/static", "/srv/mysite/static"] in copies
    for source, _ in (copy for copy in copies if len(copy) == 2):
        assert (ROOT / source).is_file()
    assert "alias /srv/mysite/static/;" in (DEPLOY / "nginx.conf").read_text()


def test_daphne_has_the_options_of_the_service() -> None:
    words = command("CMD")
    begin = words.index("--endpoint")
    assert words[begin + 2 : -1] == daphne_options()
    assert "backlog=4096" in words[begin + 1]


@pytest.fixture
def served(project: Path, tmp_path: Path) -> Iterator[int]:
    """Run the image's CMD on another port, with SQLite; yield the port."""
    port = free_port()
    endpoint = {"port=8000": f"port={port}", "interface=0.0.0.0": "interface=127.0.0.1"}
    words = [
        replaced(word, endpoint) if word.startswith("tcp:") else word for word in command("CMD")
    ]
    env = {
        "SECRET_KEY": "x" * 60,
        "ALLOWED_HOSTS": "shop.example",
        "SQLITE": str(tmp_path / "db.sqlite3"),
    }
    run(project, ["python", "manage.py", "migrate", "--verbosity", "0"], env)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(words, cwd=project, env=environment(env), stdout=log, stderr=log)
    try:
        wait_until(lambda: answers(port), "Daphne listens", DEADLINE)
        yield port
    finally:
        process.terminate()
        process.wait(DEADLINE)


def test_the_health_check_fails_only_if_the_site_does_not_answer(
    served: int,
) -> None:
    check = command("HEALTHCHECK")

    def error_of(port: int) -> str:
        words = [word.replace(":8000/", f":{port}/") for word in check]
        assert words != check
        done = subprocess.run(words, env=environment({}), capture_output=True, check=False)
        assert bool(done.returncode) == bool(done.stderr)
        return done.stderr.decode()

    assert error_of(served) == ""
    assert "Connection refused" in error_of(free_port())


def test_the_services_define_every_variable_of_the_settings(
    compose: dict[str, Any], project: Path
) -> None:
    given = {name: name.lower() for name in ("SECRET_KEY", "ALLOWED_HOSTS", "POSTGRES_PASSWORD")}
    for name in ("web-1", "web-2", "migrate"):
        env = {
            key: re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: given[found[1]], value)
            for key, value in compose["services"][name]["environment"].items()
        }
        settings = json.loads(run(project, ["python", "-c", SHOW], env))
        assert settings["SECRET_KEY"] == "secret_key"
        assert settings["ALLOWED_HOSTS"] == ["allowed_hosts", "127.0.0.1"]
        database = settings["DATABASES"]["default"]
        server = compose["services"][database["HOST"]]["environment"]
        assert {key: env[key] for key in ("POSTGRES_DB", "POSTGRES_USER")} == {
            "POSTGRES_DB": database["NAME"],
            "POSTGRES_USER": database["USER"],
        }
        assert server["POSTGRES_DB"] == database["NAME"]
        assert server["POSTGRES_PASSWORD"] == "${POSTGRES_PASSWORD:?a random text}"
        (host,) = settings["CHANNEL_LAYERS"]["default"]["CONFIG"]["hosts"]
        layer = layer_settings(PUBSUB, host, prefix="allowed_hosts")
        assert settings["CHANNEL_LAYERS"] == layer["CHANNEL_LAYERS"]
        assert host.split("/")[2].partition(":")[0] in compose["services"]
        run(project, ["python", "manage.py", "check", "--fail-level", "WARNING"], env)


def test_two_sites_on_one_redis_have_layers_with_different_prefixes(project: Path) -> None:
    prefixes = set()
    for hosts in ("example.com,www.example.com", "staging.example.com"):
        env = {"SECRET_KEY": "x", "ALLOWED_HOSTS": hosts, "REDIS_URL": "redis://redis:6379/0"}
        settings = json.loads(run(project, ["python", "-c", SHOW], env))
        prefixes.add(settings["CHANNEL_LAYERS"]["default"]["CONFIG"]["prefix"])
    assert prefixes == {"example.com", "staging.example.com"}


PROJECTS_OWN = """
REALTIME = {"AUTHENTICATE": "mysite.tokens.authenticate", "TRUSTED_PROXIES": ["10.0.0.1"]}
DATABASES["default"] |= {"ATOMIC_REQUESTS": True, "OPTIONS": {"timeout": 5, "cached_statements": 9}}
DATABASES["legacy"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": "legacy.sqlite3"}
CHANNEL_LAYERS = {"chat": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
"""


@pytest.mark.parametrize("variables", [{}, {"POSTGRES_HOST": "db", "TRUSTED_PROXIES": "unix"}])
def test_the_projects_own_settings_stay(
    project: Path, tmp_path: Path, variables: dict[str, str]
) -> None:
    own = shutil.copytree(project, tmp_path / "project")
    settings = own / "mysite" / "settings.py"
    settings.write_text(settings.read_text() + PROJECTS_OWN)
    required = ("SECRET_KEY", "ALLOWED_HOSTS", "POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD")
    env = dict.fromkeys(required, "x") | {"REDIS_URL": "redis://cache"} | variables
    shown = json.loads(run(own, ["python", "-c", SHOW], env))
    proxies = ["unix"] if variables else ["10.0.0.1"]
    assert shown["REALTIME"] == {
        "AUTHENTICATE": "mysite.tokens.authenticate",
        "TRUSTED_PROXIES": proxies,
    }
    assert set(shown["CHANNEL_LAYERS"]) == {"chat", "default"}
    default, legacy = (shown["DATABASES"][name] for name in ("default", "legacy"))
    assert legacy["NAME"] == "legacy.sqlite3"
    assert default["ATOMIC_REQUESTS"] is True
    kept = {name: default["OPTIONS"].get(name) for name in ("timeout", "cached_statements")}
    if variables:
        assert default["HOST"] == "db"
        assert kept == {"timeout": None, "cached_statements": None}
    else:
        assert default["NAME"] == "/var/lib/realtime/db.sqlite3"
        assert kept == {"timeout": 20, "cached_statements": 9}


def test_a_missing_secret_is_named(project: Path) -> None:
    with pytest.raises(AssertionError, match="KeyError: 'SECRET_KEY'"):
        run(project, ["python", "manage.py", "check"], {"ALLOWED_HOSTS": "shop.example"})


def test_no_secret_is_in_a_file(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for key, value in service.get("environment", {}).items():
            if "KEY" in key or "PASSWORD" in key:
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), key
    assert not [rest for word, rest in dockerfile() if word in ("ENV", "ARG") and "SECRET" in rest]
    assert ".env*" in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()


def test_the_services_agree_on_names_and_ports(compose: dict[str, Any]) -> None:
    services = compose["services"]
    webs = [name for name in services if name.startswith("web-")]
    found = SERVER.findall((DEPLOY / "upstream-compose.conf").read_text())
    (port,) = (rest for word, rest in stage("site") if word == "EXPOSE")
    assert [address for _, address, _ in found] == [f"{name}:{port}" for name in webs]
    assert f"port={port}:" in " ".join(command("CMD"))
    for service in services.values():
        dependencies = service.get("depends_on", [])
        assert set(dependencies) <= set(services)
        conditions = dependencies.items() if isinstance(dependencies, dict) else []
        for name, dependency in conditions:
            if dependency["condition"] == "service_healthy":
                assert "healthcheck" in services[name]
        if "build" in service:
            folder = (DEPLOY / service["build"]["context"]).resolve()
            assert (folder / service["build"]["dockerfile"]) == DEPLOY / "Dockerfile"
            assert stage(service["build"]["target"])
