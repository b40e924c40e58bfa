#!/bin/sh
# Installs the wheel with the given extras, separated by commas, into /opt/marquee.
set -eu
extras=$1
python -m venv --without-pip /opt/marquee
# With digests, pip refuses to install from a file that has none, as the wheel.
sed -i -e '/^ *--hash=/d' -e 's/ *\\$//' /build/constraints.txt
# STORE_PACKAGES is a list of packages, so it is split into words.
# shellcheck disable=SC2086
pip --python /opt/marquee/bin/python install --no-cache-dir --root-user-action=ignore \
    --constraint /build/constraints.txt "$(ls /wheels/*.whl)[$extras]" ${STORE_PACKAGES:-}
pip --python /opt/marquee/bin/python uninstall --yes --root-user-action=ignore \
    pip setuptools wheel libclang
# Headers to compile against and packages' own tests: a quarter of what TensorFlow installs.
packages=$(echo /opt/marquee/lib/python3.*/site-packages)
find "$packages" -name '*.dist-info' -prune -o \
    -type d \( -name include -o -name tests \) -prune -exec rm -rf {} +
