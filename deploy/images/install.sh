#!/bin/sh
# Installs the wheel with the given extras, separated by commas, into /opt/marquee.
set -eu
extras=$1
python -m venv --without-pip /opt/marquee
# pip checks digests only if every package has one, and the project's wheel has none. Therefore pip
# installs by version, and the digests of the installed files are checked afterwards.
grep -o 'sha256:[0-9a-f]*' /build/constraints.txt >/build/digests.txt
sed -i -e '/^ *--hash=/d' -e 's/ *\\$//' /build/constraints.txt
into_environment() {
    action=$1
    shift
    pip --python /opt/marquee/bin/python "$action" --root-user-action=ignore "$@"
}
into_environment install --no-cache-dir --constraint /build/constraints.txt \
    --report /build/report.json "$(ls /wheels/*.whl)[$extras]"
python - <<'END'
import json, sys

with open("/build/digests.txt") as lines:
    known = {line.strip().removeprefix("sha256:") for line in lines}
with open("/build/report.json") as report:
    files = [item["download_info"] for item in json.load(report)["install"]]
others = [file for file in files if not file["url"].startswith("file:///wheels/")]
wrong = [file["url"] for file in others if file["archive_info"]["hashes"]["sha256"] not in known]
if wrong or not others:
    sys.exit(f"files with digests that are not in constraints.txt: {wrong}")
print(f"the digests of {len(others)} packages match constraints.txt")
END
# STORE_PACKAGES is a list, so it must be split into words. The constraints file has no digests for
# these packages.
if [ -n "${STORE_PACKAGES:-}" ]; then
    # shellcheck disable=SC2086
    into_environment install --no-cache-dir --constraint /build/constraints.txt ${STORE_PACKAGES}
fi
into_environment uninstall --yes pip setuptools wheel libclang
# Removes headers and the packages' tests, which are a quarter of TensorFlow's size.
packages=$(echo /opt/marquee/lib/python3.*/site-packages)
find "$packages" -name '*.dist-info' -prune -o \
    -type d \( -name include -o -name tests \) -prune -exec rm -rf {} +
