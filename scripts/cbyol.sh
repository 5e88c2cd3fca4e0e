#!/usr/bin/env bash
# C-BYOL on ImageNet; CONFIG=cbyol_1000epochs is the long recipe.
. "$(dirname "$0")/python.sh"
exec "$python" "$root/run.py" \
  --preset="${CONFIG:-cbyol_300epochs}" --use_tpu=true "$@"
