#!/usr/bin/env bash
# SimCLR on ImageNet; CONFIG=simclr_1000epochs is the long recipe.
. "$(dirname "$0")/python.sh"
exec "$python" "$root/run.py" \
  --preset="${CONFIG:-simclr_300epochs}" --use_tpu=true "$@"
