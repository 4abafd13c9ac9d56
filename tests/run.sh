#!/usr/bin/env bash
# Run the tests: ./tests/run.sh [pytest options]. Sets up its environment at the first call.
#
# e.g.: ./tests/run.sh                     style, types, and the default suite, on all cores (minutes)
#       ./tests/run.sh -m slow             the slow tests
#       ./tests/run.sh tests/tables/test_tables.py -k truncated
set -euo pipefail
cd "$(dirname "$0")/.."
REQUIREMENTS=requirements-dev.txt
. utils/environment.sh
if [ $# -eq 0 ]; then
  ruff check .
  ruff format --check .
  mypy
  exec python3 -m pytest -n auto --maxprocesses=8
fi
exec python3 -m pytest "$@"
