#!/usr/bin/env bash
# A wheel runs outside of the clone, also where folders are called as wings are.
set -eu
cd "$(dirname "$0")/.."
place=$(mktemp -d)
rm -rf build # What is left of an earlier wheel would be in this one.
trap 'rm -rf "$place" build' EXIT
"${PYTHON:-python3}" -m venv "$place/venv"
pip="$place/venv/bin/python -m pip --quiet --disable-pip-version-check"
$pip wheel --no-deps --wheel-dir "$place" .
$pip install --no-deps "$place"/*.whl
$pip install absl-py 2>/dev/null # All that --help needs.
mkdir -p "$place/elsewhere/data" "$place/elsewhere/checkpoints"
(
  cd "$place/elsewhere"
  "$place/venv/bin/python" -m run --help | grep -q -- '--preset=quickstart'
)
echo 'wheel: built, installed, started'
