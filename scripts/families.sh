#!/usr/bin/env bash
# Trains every method in small on the built-in photographs and compares them;
# resumes where it stopped. Names of runs may be given: scripts/families.sh byol
set -eu
. "$(dirname "$0")/env.sh" .venv -e '.[quickstart,plot]'
exec "$python" scripts/families.py "$@"
