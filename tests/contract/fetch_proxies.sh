#!/usr/bin/env bash
# Unpacks nginx and HAProxy of Debian into a folder, without privileges and without installing
# them. Where there is no apt, or no package can be had, it says so, and the tests that need a
# proxy skip.
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
    echo "no proxy of Debian's packages here; see $folder/log" >&2
fi
rm -rf "$folder/apt"
