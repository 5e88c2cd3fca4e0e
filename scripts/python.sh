# Sourced: sets $python to the one that runs this project, and $root. That is
# $PYTHON, else the first that has the packages: of the active environment, of
# .venv, of the system.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
has_packages() {
  "$1" -c 'import importlib.util as u, sys
sys.exit(not all(map(u.find_spec, ("absl", "tensorflow"))))' >/dev/null 2>&1
}
python=
for candidate in ${PYTHON:+"$PYTHON"} \
  ${VIRTUAL_ENV:+python3} ${CONDA_PREFIX:+python3} "$root/.venv/bin/python" python3; do
  if has_packages "$candidate"; then
    python=$candidate
    break
  fi
  # What was asked for is not replaced by another one.
  [ -z "${PYTHON:-}" ] || break
done
if [ -z "$python" ]; then
  echo "$(basename "$0"): no Python here has TensorFlow. In $root: python3 -m venv .venv && .venv/bin/pip install -e ." >&2
  exit 2
fi
