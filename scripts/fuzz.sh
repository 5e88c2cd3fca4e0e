#!/usr/bin/env bash
# Coverage-guided fuzzing of the parsers of foreign files, a minute each.
#   bash scripts/fuzz.sh --seconds=600
set -eu
. "$(dirname "$0")/env.sh" .venv -e '.[fuzz]'
exec "$python" scripts/fuzz.py "$@"
