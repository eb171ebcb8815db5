"""Create thousands of signed-in users.

    python -m benchmarks.people COUNT       # prints one session key per line

The sessions are like those that Django's own login creates.
"""

import subprocess
import sys
from datetime import timedelta
from importlib import import_module

from benchmarks.peers import Workspace


def cookies(workspace: Workspace, count: int) -> list[str]:
    """Create users, each with a session; return the header lines with their cookies."""
    command = [sys.executable, "-m", "benchmarks.people", str(count)]
    done = subprocess.run(
        command, env=workspace.env(), stdout=subprocess.PIPE, text=True, check=True
    )
    return [f"Cookie: sessionid={key}" for key in done.stdout.split()]


def main() -> None:
    import_module("benchmarks.site")  # it configures Django
    from django.conf import settings
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.auth.hashers import make_password
    from django.contrib.auth.models import User
    from django.contrib.sessions.backends.db import SessionStore
    from django.contrib.sessions.models import Session
    from django.utils import timezone
    from django.utils.crypto import get_random_string

    first = User.objects.count()
    users = User.objects.bulk_create(
        User(username=f"user{number}", password=make_password(None))
        for number in range(first, first + int(sys.argv[1]))
    )
    store, end = SessionStore(), timezone.now() + timedelta(days=1)
    sessions = []
    for user in users:
        data = {
            SESSION_KEY: str(user.pk),
            BACKEND_SESSION_KEY: settings.AUTHENTICATION_BACKENDS[0],
            HASH_SESSION_KEY: user.get_session_auth_hash(),
        }
        key = get_random_string(32).lower()
        sessions.append(Session(session_key=key, session_data=store.encode(data), expire_date=end))
    Session.objects.bulk_create(sessions)
    print("\n".join(session.session_key for session in sessions))


if __name__ == "__main__":
    main()
