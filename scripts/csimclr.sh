#!/usr/bin/env bash
# C-SimCLR on ImageNet; CONFIG=csimclr_1000epochs is the long recipe.
. "$(dirname "$0")/python.sh"
exec "$python" "$root/run.py" \
  --preset="${CONFIG:-csimclr_300epochs}" --use_tpu=true "$@"
