#!/usr/bin/env bash
# SimCLR and BYOL against C-SimCLR and C-BYOL in small, three seeds each, with
# their evaluation cards: an hour or more on two cores. Goes on where it stopped.
set -eu
. "$(dirname "$0")/env.sh" .venv -e '.[quickstart,plot]'
exec "$python" scripts/reproduce_small.py "$@"
