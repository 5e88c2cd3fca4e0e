#!/usr/bin/env bash
# A report on the packages in .venv: known vulnerabilities and licences. Its
# status is 0 whatever it finds, and without a network too.
set -euo pipefail
. "$(dirname "$0")/env.sh" .venv-audit pip-audit pip-licenses
report() {
  echo "== $1"
  shift
  # Packages that the index does not know cannot be told apart from no answer.
  timeout 60 "$@" 2>&1 | grep -v 'could not be audited' ||
    echo '(something was found, or nothing answered)'
}
report 'known vulnerabilities' "$python" -m pip_audit --progress-spinner=off \
  --path "$(.venv/bin/python -c 'import sysconfig as s; print(s.get_path("purelib"))')"
report 'licences' "$(dirname "$python")/pip-licenses" --python=.venv/bin/python \
  --order=license --format=plain --from=classifier --summary
