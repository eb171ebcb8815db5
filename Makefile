# Needs git, make and Python 3.11 or newer; everything else is installed into .venv.
# The scripts in tools/ do the work.

PORT ?= 8000
ARGS ?=
RUN = @PYTHON="$(PYTHON)" sh tools/python.sh -m

.PHONY: help demo test check chaos soak js reference test-all bench clean

help:
	@echo "make demo      serve the demo on http://127.0.0.1:8000/ (PORT=8001 for another port)"
	@echo "make test      run the test suite (ARGS='-k hub' is passed to pytest)"
	@echo "make check     check formatting, lint, types and JavaScript, and try the wheel in a new project"
	@echo "make chaos     kill, pause and restart servers and databases under clients that check every event"
	@echo "make soak      flood a server in every way that is limited, under clients that check every event"
	@echo "make js        bundle js/src into realtime/static/realtime/realtime.js (needs Node)"
	@echo "make reference write docs/reference.md from the docstrings"
	@echo "make test-all  run the suite on Django 5.2 and Python 3.11, and on Django 6.1 and the newest Python"
	@echo "make bench     run the benchmarks (with ARGS)"
	@echo "make clean     remove everything that the other targets created"
	@echo "PYTHON=/path/to/python3 chooses the interpreter."

demo:
	$(RUN) tools.demo $(PORT)

test:
	$(RUN) tools.run_tests $(ARGS)

check:
	$(RUN) tools.run_checks

chaos:
	$(RUN) tools.run_tests tests/chaos $(ARGS)

soak:
	$(RUN) tools.bench floods

js:
	$(RUN) tools.javascript build

reference:
	$(RUN) tools.reference

test-all:
	$(RUN) tools.run_all

bench:
	$(RUN) tools.bench $(ARGS)

clean:
	rm -rf .venv .venvs js/node_modules build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis demo.sqlite3*
	find realtime tests tools project benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
