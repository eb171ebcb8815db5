"""The test runs of a project on PostgreSQL end with exit code 0, and no database is left.

Covers dropping.py.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.databases import database_config

SAMPLE = Path(__file__).parent / "postgres_sample"
ROOT = SAMPLE.parents[2]


@pytest.mark.parametrize(
    ("runner", "options"),
    [
        (["-m", "pytest", "-q", "-p", "no:asyncio"], {}),
        (["manage.py", "test", "-v1", "--parallel", "1"], {}),
        (["manage.py", "test", "-v1", "--parallel", "4"], {}),
        (["manage.py", "test", "-v1", "--parallel", "4"], {"pool": True}),
    ],
    ids=["pytest", "django", "django-in-parallel", "django-in-parallel-with-a-pool"],
)
def test_a_test_run_on_postgresql_drops_its_databases(
    postgres_database: str, tmp_path: Path, runner: list[str], options: dict[str, object]
) -> None:
    project = shutil.copytree(SAMPLE, tmp_path / "sample")
    entry = database_config(postgres_database)
    entry["OPTIONS"] |= options
    # Connections that live long, as many projects have them; a pool does not allow it.
    entry["CONN_MAX_AGE"] = 0 if options else None
    keep = ("PATH", "HOME", "LANG")
    done = subprocess.run(
        [sys.executable, *runner],
        cwd=project,
        env={name: os.environ[name] for name in keep if name in os.environ}
        | {"PYTHONPATH": str(ROOT), "SAMPLE_DATABASE": json.dumps(entry)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    output = done.stdout + done.stderr
    assert "4 passed" in output or "Ran 4 tests" in output
    assert databases_like(postgres_database, f"test_{entry['NAME']}%") == []


def databases_like(url: str, pattern: str) -> list[str]:
    import psycopg

    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT datname FROM pg_database WHERE datname LIKE %s", [pattern]
        ).fetchall()
    return [name for (name,) in rows]
