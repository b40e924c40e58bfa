#!/usr/bin/env bash
# Creates a virtual environment with s3fs and with moto, an object store that implements the S3 API,
# for the tests of release stores in object storage. It is separate, because botocore is not
# compatible with the newest versions of the project's dependencies. Without it, these tests are
# skipped.
set -euo pipefail
python=$1
folder=$2
"$python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --no-deps --only-binary :all: \
    --requirement tests/object_storage.txt ||
    echo "cannot install s3fs and moto: the tests of object storage are skipped" >&2
