#!/usr/bin/env bash
# Makes an environment with an object store that speaks the S3 protocol (moto) and with s3fs, for
# the tests of release stores in object storage. It is an environment of its own, because botocore
# does not go with the newest versions of what the project uses. Without it these tests are skipped.
set -euo pipefail
python=$1
folder=$2
"$python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --no-deps --only-binary :all: \
    --requirement tests/object_storage.txt ||
    echo "cannot install s3fs and moto; the tests of object storage are skipped" >&2
