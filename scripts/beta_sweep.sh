#!/usr/bin/env bash
# C-SimCLR in small over beta and kappa_e: rate against accuracy, about half an
# hour on two cores. Goes on where it stopped.
set -eu
. "$(dirname "$0")/env.sh" .venv -e '.[quickstart,plot]'
exec "$python" scripts/beta_sweep.py "$@"
