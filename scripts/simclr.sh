#!/usr/bin/env bash
# SimCLR on ImageNet; CONFIG=simclr_1000epochs is the long recipe.
exec "${PYTHON:-python3}" "$(dirname "$0")/../run.py" \
  --preset="${CONFIG:-simclr_300epochs}" --use_tpu=true "$@"
