#!/usr/bin/env bash
# Trains C-SimCLR on the built-in photographs on the CPU, then compares a linear
# probe on the trained encoder with one on the untrained encoder.
set -eu
. "$(dirname "$0")/env.sh" .venv -e '.[quickstart]'
"$python" run.py --preset=quickstart "$@" --model_dir=runs/quickstart
"$python" scripts/quickstart_table.py runs/quickstart
echo
echo "Pictures of the run, for a browser: $PWD/runs/quickstart/report.html"
