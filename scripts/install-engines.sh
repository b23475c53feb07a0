#!/bin/sh
# Installs what `engines` needs, Postgres and Redis, unless they are there: silent when there is nothing to do.
# On a Debian-like system, as root or with sudo that asks no password; elsewhere one line says what to install.
# The packages' own services are not started: ports 5432 and 6379 stay free.
set -eu

found() {
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/bin/$1" ] || [ -x "/usr/local/bin/$1" ]
}

# The same places in which the program `engines` looks.
have_postgres() {
    for dir in ${PG_BIN:+"$PG_BIN"} /usr/lib/postgresql/*/bin "$(pg_config --bindir 2>/dev/null || true)"; do
        [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ] && return
    done
    found initdb && found postgres
}

have_redis() {
    [ -x "${REDIS_SERVER:-}" ] || found redis-server || found valkey-server
}

missing=
have_postgres || missing="postgresql"
have_redis || missing="${missing:+$missing }redis-server"
found setpriv || missing="${missing:+$missing }util-linux"
[ -n "$missing" ] || exit 0

fail() {
    echo "install-engines: $1: install ${missing} (on Debian: apt-get install ${missing})" >&2
    exit 1
}

command -v apt-get >/dev/null 2>&1 || fail "no apt-get here"
if [ "$(id -u)" -eq 0 ]; then
    root=
elif sudo -n true 2>/dev/null; then
    root=sudo
else
    fail "not root, and sudo asks for a password"
fi

# No service starts and no cluster is made while these two files say so. Afterwards they are what they were.
policy=/usr/sbin/policy-rc.d
cluster=/etc/postgresql-common/createcluster.conf
scratch=$(mktemp -d)
log=$scratch/log

restore() {
    if [ -e "$scratch/policy" ]; then
        $root cp -p "$scratch/policy" "$policy"
    else
        $root rm -f "$policy"
    fi
    if [ -e "$scratch/cluster" ]; then
        $root cp -p "$scratch/cluster" "$cluster"
    fi
    rm -rf "$scratch"
}

# shellcheck disable=SC2086 # a list of packages
apt() {
    $root env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" >>"$log" 2>&1
}

if [ -e "$policy" ]; then
    $root cp -p "$policy" "$scratch/policy"
fi
trap restore EXIT
trap 'exit 1' HUP INT TERM
printf '#!/bin/sh\nexit 101\n' | $root tee "$policy" >/dev/null
$root chmod 755 "$policy"

explain() {
    tail -n 5 "$log" >&2
    fail "apt-get did not succeed"
}

apt update || explain
case $missing in
*postgresql*)
    apt install --no-install-recommends postgresql-common || explain
    $root cp -p "$cluster" "$scratch/cluster"
    echo 'create_main_cluster = false' | $root tee -a "$cluster" >/dev/null
    ;;
esac
# shellcheck disable=SC2086 # a list of packages
apt install --no-install-recommends $missing || explain

# Nor shall they start with the machine.
if command -v systemctl >/dev/null 2>&1; then
    for service in $missing; do
        case $service in
        util-linux) ;;
        *) $root systemctl disable "$service" >>"$log" 2>&1 || true ;;
        esac
    done
fi
