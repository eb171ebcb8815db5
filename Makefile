# Needs git, make and Python 3.11 or newer; everything else is installed into .venv.
# The work is done by the scripts in tools/.

PORT ?= 8000
ARGS ?=
RUN = @PYTHON="$(PYTHON)" sh tools/python.sh -m

.PHONY: help demo test check chaos js test-all bench clean

help:
	@echo "make demo      serve the demo on http://127.0.0.1:8000/ (PORT=8001 for another port)"
	@echo "make test      run the test suite (ARGS='-k hub' goes to pytest)"
	@echo "make check     formatting, lint, types, the JavaScript, and the built wheel in a new project"
	@echo "make chaos     kill, pause and restart nodes and engines under clients that check each event"
	@echo "make js        bundle js/src into realtime/static/realtime/realtime.js (needs Node)"
	@echo "make test-all  the suite on Django 5.2/Python 3.11 and Django 6.1/the newest Python"
	@echo "make bench     run the benchmarks (ARGS goes to them)"
	@echo "make clean     remove everything that these made"
	@echo "PYTHON=/path/to/python3 chooses the interpreter."

demo:
	$(RUN) tools.demo $(PORT)

test:
	$(RUN) tools.run_tests $(ARGS)

check:
	$(RUN) tools.run_checks

chaos:
	$(RUN) tools.run_tests tests/chaos $(ARGS)

js:
	$(RUN) tools.javascript build

test-all:
	$(RUN) tools.run_all

bench:
	$(RUN) tools.bench $(ARGS)

clean:
	rm -rf .venv .venvs js/node_modules build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis demo.sqlite3*
	find realtime tests tools project benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
