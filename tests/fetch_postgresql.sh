#!/usr/bin/env bash
# Downloads Debian's PostgreSQL server and unpacks it into a folder, unless PostgreSQL is installed.
# It needs no root privileges and installs nothing on the system. If apt or the package is not
# available, it prints a message, and the tests that need PostgreSQL are skipped.
set -euo pipefail
folder=$1
rm -rf "$folder"
mkdir -p "$folder"
if [ -z "${FORCE:-}" ] && { compgen -G "/usr/lib/postgresql/*/bin/initdb" || command -v initdb; } >/dev/null; then
    exit 0
fi
mkdir -p "$folder"/apt/{state/lists/partial,cache/archives/partial}
folder=$(cd "$folder" && pwd)
apt=(apt-get --quiet=2 -o "Dir::State=$folder/apt/state" -o "Dir::Cache=$folder/apt/cache"
    -o Dir::State::status=/var/lib/dpkg/status -o Debug::NoLocking=1 -o APT::Sandbox::User=)
if command -v apt-get dpkg-deb >"$folder/log" &&
    "${apt[@]}" update >>"$folder/log" 2>&1 &&
    "${apt[@]}" install --yes --no-install-recommends --download-only --reinstall \
        postgresql >>"$folder/log" 2>&1; then
    # The metapackage depends on the packages of the current version, which are downloaded here.
    version=$(apt-cache -o "Dir::State=$folder/apt/state" -o "Dir::Cache=$folder/apt/cache" \
        -o Dir::State::status=/var/lib/dpkg/status depends postgresql |
        sed -n 's/.*Depends: \(postgresql-[0-9]*\)$/\1/p' | head -n 1)
    "${apt[@]}" install --yes --no-install-recommends --download-only --reinstall \
        "$version" "postgresql-client-${version#postgresql-}" libpq5 >>"$folder/log" 2>&1 || true
    for package in "$folder"/apt/cache/archives/*.deb; do
        dpkg-deb --extract "$package" "$folder"
    done
else
    echo "cannot fetch PostgreSQL from Debian's packages; see $folder/log" >&2
fi
rm -rf "$folder/apt"
