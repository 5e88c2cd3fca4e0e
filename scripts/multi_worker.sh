#!/usr/bin/env bash
# One run as N worker processes on this machine:
#   bash scripts/multi_worker.sh N --preset=... --model_dir=...
#   bash scripts/multi_worker.sh --restart=5 N --preset=... --model_dir=...
# With --restart all workers start again, from the newest checkpoint, when one of
# them dies, or when the chief prints nothing for --silence=900 seconds.
set -eu
cd "$(dirname "$0")/.."
. scripts/python.sh
exec "$python" scripts/multi_worker.py "$@"
