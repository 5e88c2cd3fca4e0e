# Sourced: makes a virtual environment that holds this project, once.
#   . scripts/env.sh .venv '.[quickstart]'
#   . scripts/env.sh .venv-legacy -r requirements-legacy.txt pytest
# It is installed again only when what to install has changed. Sets $python.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=$1
shift
python=$PWD/$folder/bin/python
wanted=$({ echo "$@"; cat setup.py requirements*.txt; } | cksum)
if [ "$(cat "$folder/installed-$(echo "$*" | cksum | cut -d' ' -f1)" 2>/dev/null)" != "$wanted" ]; then
  echo "Installing into $folder (once, a few minutes): $*"
  if ! "$python" -c 'import pip' 2>/dev/null; then
    "${PYTHON:-python3}" -m venv "$folder"
  fi
  "$python" -m pip install --quiet --quiet --upgrade pip
  "$python" -m pip install --quiet --quiet "$@"
  echo "$wanted" >"$folder/installed-$(echo "$*" | cksum | cut -d' ' -f1)"
fi
