#!/usr/bin/env bash
# Checks the SDK: ruff, mypy --strict, pytest with coverage against the real server (CODITECT_LICENSE_BIN, or what
# cargo built here). Arguments go to pytest: `-m ''` runs the slow tests too. The last line is pytest's own.
set -euo pipefail
cd "$(dirname "$0")"
./venv.sh
.venv/bin/ruff format --check --quiet . || { echo "ruff format: not clean" >&2; exit 1; }
.venv/bin/ruff check --quiet .
.venv/bin/mypy --strict --no-error-summary
export COVERAGE_FILE=.venv/.coverage
exec .venv/bin/pytest -q --cov --cov-report=term:skip-covered "$@"
