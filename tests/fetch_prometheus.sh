#!/usr/bin/env bash
# Downloads Debian's Prometheus package and unpacks it into a folder, unless Prometheus is installed.
# It needs no root privileges and installs nothing on the system. If apt or the package is not
# available, it prints a message, and the tests that need Prometheus are skipped.
set -euo pipefail
folder=$1
rm -rf "$folder"
mkdir -p "$folder"
if [ -z "${FORCE:-}" ] && command -v prometheus promtool >/dev/null; then
    exit 0
fi
mkdir -p "$folder"/apt/{state/lists/partial,cache/archives/partial}
folder=$(cd "$folder" && pwd)
apt=(apt-get --quiet=2 -o "Dir::State=$folder/apt/state" -o "Dir::Cache=$folder/apt/cache"
    -o Dir::State::status=/var/lib/dpkg/status -o Debug::NoLocking=1 -o APT::Sandbox::User=)
# Only the programs are needed, so dependencies such as the web interface's libraries are omitted.
if command -v apt-get dpkg-deb >"$folder/log" &&
    "${apt[@]}" update >>"$folder/log" 2>&1 &&
    (cd "$folder/apt" && "${apt[@]}" download prometheus >>"$folder/log" 2>&1); then
    dpkg-deb --extract "$folder"/apt/prometheus_*.deb "$folder"
else
    echo "cannot fetch Prometheus from Debian's packages; see $folder/log" >&2
fi
rm -rf "$folder/apt"
