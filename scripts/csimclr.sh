#!/usr/bin/env bash
# C-SimCLR on ImageNet; CONFIG=csimclr_1000epochs is the long recipe.
exec "${PYTHON:-python3}" "$(dirname "$0")/../run.py" \
  --preset="${CONFIG:-csimclr_300epochs}" --use_tpu=true "$@"
