#!/usr/bin/env bash
# The quickstart's learning rate and beta, chosen on validation patches of the
# built-in photographs: five runs, about a quarter of an hour on two cores.
set -eu
. "$(dirname "$0")/env.sh" .venv -e '.[quickstart,plot]'
exec "$python" scripts/choose_small.py "$@"
