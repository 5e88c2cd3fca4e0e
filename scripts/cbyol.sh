#!/usr/bin/env bash
# C-BYOL on ImageNet; CONFIG=cbyol_1000epochs is the long recipe.
exec "${PYTHON:-python3}" "$(dirname "$0")/../run.py" \
  --preset="${CONFIG:-cbyol_300epochs}" --use_tpu=true "$@"
