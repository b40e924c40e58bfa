#!/bin/sh
# Installs the project with the oldest or newest dependencies that pyproject.toml allows, and runs the
# tests of the core, the client and the servers.
#
# usage: check_dependencies.sh PYTHON FOLDER lowest-direct|highest [ARGUMENTS OF PYTEST]
set -eu
python=$1 folder=$2 resolution=$3
shift 3
"$python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet uv
"$folder/bin/uv" pip install --quiet --python "$folder/bin/python" \
    --resolution "$resolution" --upgrade --editable '.[dev]'
"$folder/bin/uv" pip list --quiet --python "$folder/bin/python" >"$folder/versions.txt"
echo "$resolution: versions in $folder/versions.txt"
# Other versions of libraries may emit warnings that do not concern the project.
"$folder/bin/python" -m pytest -q -p no:cacheprovider -o filterwarnings=default \
    -m "not slow and not alone" "${@:-tests/core}" tests/client tests/server tests/services
