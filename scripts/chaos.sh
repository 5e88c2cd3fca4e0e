#!/usr/bin/env bash
# What a run survives: the tests of 38 faults, then SIGKILL at random moments.
#   bash scripts/chaos.sh --minutes=30 --seed=0
set -eu
. "$(dirname "$0")/env.sh" .venv -e '.[test]'
exec "$python" scripts/chaos.py "$@"
