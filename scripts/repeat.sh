#!/usr/bin/env bash
# Does a run repeat to the last bit, in another process and killed on the way?
#   bash scripts/repeat.sh METHOD...     some minutes each
set -eu
. "$(dirname "$0")/env.sh" .venv -e '.[quickstart,plot]'
exec "$python" scripts/repeat.py "$@"
