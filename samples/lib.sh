# lib.sh - what the scripts of this tree share; to be sourced. Finds the top, installs what is missing
# from samples/packages.txt, builds with a preset.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# packages SECTION...: the names under these headings.
packages() {
    local section
    for section in "$@"; do
        sed -n "/^\[$section\]/,/^\[/{/^[a-z]/p}" "$top/samples/packages.txt"
    done | sort -u
}

# missing SECTION...: those of them that are not installed.
missing() {
    local name
    command -v dpkg-query >/dev/null || return 0
    for name in $(packages "$@"); do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || echo "$name"
    done
}

# need SECTION...: installs what is missing, with root's rights or sudo.
need() {
    local names sudo=
    names=$(missing "$@" | tr '\n' ' ')
    [ -n "$names" ] || return 0
    command -v apt-get >/dev/null || fail "needed and not installed: $names(Debian names)"
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || fail "needed and not installed; as root: apt-get install $names"
        sudo=sudo
    fi
    echo "installing $names"
    local log
    log=$(mktemp)
    if ! { $sudo apt-get update -q && DEBIAN_FRONTEND=noninteractive $sudo ${sudo:+env DEBIAN_FRONTEND=noninteractive} \
            apt-get install -qy --no-install-recommends $names; } >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        fail "installing packages failed"
    fi
    rm -f "$log"
}

# has COMMAND...: whether all of them are there.
has() {
    local name
    for name in "$@"; do
        command -v "$name" >/dev/null || return 1
    done
}

# build PRESET [CMAKE-ARG...]: configures and builds quietly; says what went wrong when it does.
build() {
    local preset=$1 log
    shift
    log=$(mktemp)
    command -v ccache >/dev/null && set -- "$@" -DCMAKE_C_COMPILER_LAUNCHER=ccache
    if ! { cd "$top" && cmake --preset "$preset" "$@" && cmake --build --preset "$preset"; } >"$log" 2>&1; then
        grep -E 'error|warning|FAILED|CMake Error' -A 6 "$log" | sed -n 1,200p >&2
        tail -n 20 "$log" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}
