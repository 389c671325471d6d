#!/usr/bin/env bash
# Install requirements into the virtual environment $VENV, made first where it is missing.
# The Dockerfile, the Makefile and the tests all call it.
#   VENV=.venv PYTHON=python3 builder/setup.sh builder/requirements.txt [more.txt ...]
set -euo pipefail

: "${VENV:=.venv}" "${PYTHON:=python3}"

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or newer is needed; $("$PYTHON" --version) found. Set PYTHON to another one." >&2
    exit 1
}
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
for requirements in "$@"; do
    case $requirements in
        *-bare.txt) bare=--no-deps ;;
        *) bare= ;;
    esac
    "$VENV/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check $bare \
        --requirement "$requirements"
done
# Byte code by every core, where pip takes one. Some packages carry templates that are not Python; those are left.
"$VENV/bin/python" -m compileall -qq --workers 0 "$VENV/lib" || true
