#!/usr/bin/env bash
# BYOL on ImageNet; CONFIG=byol_1000epochs is the long recipe.
. "$(dirname "$0")/python.sh"
exec "$python" "$root/run.py" \
  --preset="${CONFIG:-byol_300epochs}" --use_tpu=true "$@"
