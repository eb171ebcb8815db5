"""Read the files of deploy/, and adapt them to the ports and folders of a test."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from tests.support.nginx import TEMPORARY
from tools.environment import ROOT

DEPLOY = ROOT / "deploy"
UNITS = DEPLOY / "systemd"
SERVER = re.compile(r"^ *(# )?server (\S+?)((?: [\w=]+)*);\n", re.MULTILINE)


def replaced(text: str, values: dict[str, str]) -> str:
    """Return a text with each key, which must occur exactly once, replaced by its value."""
    for old, new in values.items():
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in the file"
        text = text.replace(old, new)
    return text


def unit(name: str) -> list[tuple[str, str]]:
    """Return the settings of a unit, in order; a name can occur several times."""
    lines = (UNITS / name).read_text().splitlines()
    return [(key, value) for key, _, value in (line.partition("=") for line in lines) if value]


def setting(name: str, key: str) -> str:
    """Return the value of a unit's setting that occurs exactly once."""
    (value,) = (value for found, value in unit(name) if found == key)
    return value


def exec_start() -> list[str]:
    """Return the command of the service."""
    return shlex.split(setting("realtime@.service", "ExecStart"))


def daphne_options() -> list[str]:
    """Return the options that the service gives to Daphne, except for the endpoint."""
    words = exec_start()
    begin = words.index("daphne") + 1
    assert words[begin] == "--endpoint"
    return words[begin + 2 : -1]


def upstream(addresses: Sequence[str]) -> str:
    """Return upstream.conf with other addresses, of a kind that it has a line for."""
    text = (DEPLOY / "upstream.conf").read_text()
    kind = addresses[0].partition(":")[0]
    options = [rest for _, to, rest in SERVER.findall(text) if to.partition(":")[0] == kind]
    assert options, f"upstream.conf has no line for {kind}"
    lines = "".join(f"server {address}{options[0]};\n" for address in addresses)
    start = next(SERVER.finditer(text)).start()
    return SERVER.sub("", text[:start] + lines.replace("server", "SERVER") + text[start:]).replace(
        "SERVER", "server"
    )


def write_nginx(
    folder: Path, port: int, addresses: Sequence[str], user: str, tls: int | None = None
) -> Path:
    """Write nginx.conf and the files that it includes for a test; return its path.

    Args:
        folder: for all files; with `tls` it must contain `site.pem` and `site.key`.
        port: on 127.0.0.1, for HTTP.
        addresses: of the Daphne processes.
        user: the line that sets nginx's user; empty for the current user.
        tls: another port, for HTTPS.
    """
    temporary = " ".join(f"{name}_temp_path {folder}/{name};" for name in TEMPORARY)
    values = {
        "user www-data;": user,
        "pid /run/nginx.pid;": f"pid {folder}/nginx.pid; daemon off;",
        "/var/log/nginx/error.log": f"{folder}/nginx.log",
        "access_log /var/log/nginx/access.log;": f"access_log {folder}/access.log; {temporary}",
        "listen 80;": f"listen 127.0.0.1:{port};",
        "listen [::]:80;": "",
        "/srv/mysite/static/": f"{folder}/static/",
    }
    if tls is not None:
        values |= {
            "# listen 443 ssl http2;": f"listen 127.0.0.1:{tls} ssl http2;",
            "# ssl_certificate     /etc/ssl/example.com.pem;": (
                f"ssl_certificate {folder}/site.pem;"
            ),
            "# ssl_certificate_key /etc/ssl/example.com.key;": (
                f"ssl_certificate_key {folder}/site.key;"
            ),
        }
    (folder / "mime.types").write_text("types { text/html html; text/css css; }\n")
    (folder / "upstream.conf").write_text(upstream(addresses))
    config = folder / "nginx.conf"
    config.write_text(replaced((DEPLOY / "nginx.conf").read_text(), values))
    return config
