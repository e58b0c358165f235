#!/bin/sh
# Installs from Debian what is missing, as root or through sudo. Arguments: COMMAND:PACKAGE pairs; a package is installed
# only where its command is found neither on the PATH nor among PostgreSQL's own programs.
set -eu

missing=
for pair in "$@"; do
    command=${pair%%:*} package=${pair#*:}
    case $command in
        ensurepip) python3 -c 'import ensurepip, venv' 2>/dev/null && continue ;;
        *) command -v "$command" >/dev/null 2>&1 && continue
           ls /usr/lib/postgresql/*/bin/"$command" >/dev/null 2>&1 && continue ;;
    esac
    missing="$missing $package"
done
[ -n "$missing" ] || exit 0

sudo=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "missing:$missing; install them, or run this as root" >&2; exit 1; }
    sudo=sudo
fi
echo "installing from Debian:$missing" >&2

# Debian's PostgreSQL package makes and starts a server of its own; nobody asked for one.
conf=/etc/postgresql-common/createcluster.d/philotes.conf
case $missing in
    *postgresql*)
        $sudo mkdir -p "${conf%/*}"
        echo 'create_main_cluster = false' | $sudo tee "$conf" >/dev/null
        trap '$sudo rm -f "$conf"' EXIT ;;
esac

# shellcheck disable=SC2086
$sudo env DEBIAN_FRONTEND=noninteractive apt-get update -q >&2
# shellcheck disable=SC2086
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $missing >&2
