#!/usr/bin/env bash
# Downloads Debian's packages of nginx and HAProxy and unpacks them into a folder. It needs no root
# privileges and installs nothing. If apt or the packages are not available, it prints a message, and
# the tests that need a proxy are skipped.
set -euo pipefail
folder=$1
rm -rf "$folder"
mkdir -p "$folder"/apt/{state/lists/partial,cache/archives/partial}
folder=$(cd "$folder" && pwd)
apt=(apt-get --quiet=2 -o "Dir::State=$folder/apt/state" -o "Dir::Cache=$folder/apt/cache"
    -o Dir::State::status=/var/lib/dpkg/status -o Debug::NoLocking=1 -o APT::Sandbox::User=)
if command -v apt-get dpkg-deb >"$folder/log" &&
    "${apt[@]}" update >>"$folder/log" 2>&1 &&
    "${apt[@]}" install --yes --no-install-recommends --download-only --reinstall \
        nginx-light haproxy >>"$folder/log" 2>&1; then
    for package in "$folder"/apt/cache/archives/*.deb; do
        dpkg-deb --extract "$package" "$folder"
    done
else
    echo "cannot fetch nginx and HAProxy from Debian's packages; see $folder/log" >&2
fi
rm -rf "$folder/apt"
