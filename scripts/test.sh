#!/usr/bin/env bash
# The test suite, in an environment of its own. Arguments go to pytest.
set -eu
. "$(dirname "$0")/env.sh" .venv -e '.[test]'
"$python" -m ruff check .
"$python" -m ruff format --check .
"$(dirname "$python")/lint-imports"
"$python" -m pytest -n 2 --dist=worksteal "$@"
