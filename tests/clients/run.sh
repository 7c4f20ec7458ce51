#!/usr/bin/env bash
# Runs the flows of real clients: run.sh [nio|js-sdk|all] [--homeserver URL] [FLOW OPTION ...]
#
# Without --homeserver it starts the release binary on a free port of 127.0.0.1, in a new directory, and
# ends it again. Clients are installed once into ${SABHA_TEST_CACHE:-$HOME/.cache/sabha-tests}.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${SABHA_TEST_CACHE:-$HOME/.cache/sabha-tests}
binary=${CARGO_TARGET_DIR:-$root/target}/release/sabha

server=
work=
# Ends the server that this script started, whatever happens.
clean_up() {
    if [[ -n $server ]]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    if [[ -n $work ]]; then
        rm -rf "$work"
    fi
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    echo "run.sh: $*" >&2
    exit 1
}

# Configures the server under test. Its rate limits are the default ones, because a real client must work with them.
write_config() {
    local directory=$1 port=$2
    cat >"$directory/sabha.toml" <<TOML
server_name = "localhost"
data_dir = "$directory/data"

[database]
url = "sqlite:$directory/sabha.db"

[[listeners]]
address = "127.0.0.1:$port"

[registration]
mode = "open"

[metrics]
enabled = false
TOML
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Starts the release binary and sets `homeserver`.
start_server() {
    [[ -x $binary ]] || fail "no $binary: build it with 'cargo build --release'"
    local port
    port=$(free_port)
    work=$(mktemp -d)
    mkdir "$work/data"
    write_config "$work" "$port"
    SABHA_CONFIG="$work/sabha.toml" "$binary" >"$work/server.log" 2>&1 &
    server=$!
    homeserver=http://127.0.0.1:$port
    local deadline=$((SECONDS + 30))
    until curl --silent --fail --output /dev/null "$homeserver/health"; do
        if ! kill -0 "$server" 2>/dev/null || ((SECONDS > deadline)); then
            cat "$work/server.log" >&2
            fail "the server did not become healthy"
        fi
        sleep 0.1
    done
}

# Prints a directory of the cache that is named after the content of FILE, so that a change makes a new one.
installation() {
    local name=$1 file=$2
    echo "$cache/$name-$(sha256sum "$file" | cut -c1-16)"
}

run_nio() {
    local requirements=$here/nio/requirements.txt
    local venv
    venv=$(installation nio "$requirements")
    if [[ ! -e $venv/installed ]]; then
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements"
        touch "$venv/installed"
    fi
    PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" "$here/nio/flow.py" --homeserver "$homeserver" "$@"
}

run_js_sdk() {
    local packages node
    packages=$(installation js-sdk "$here/js-sdk/package-lock.json")
    if [[ ! -e $packages/installed ]]; then
        rm -rf "$packages"
        mkdir -p "$packages"
        cp "$here"/js-sdk/{package.json,package-lock.json,.npmrc} "$packages/"
        # The system's npm may use an older Node than the one that it installs here.
        (cd "$packages" && npm ci --ignore-scripts --loglevel=error)
        touch "$packages/installed"
    fi
    # Node looks for packages in the folders above a file, so the flow runs from a folder beside them.
    mkdir -p "$packages/js-sdk"
    cp "$here"/js-sdk/*.mjs "$packages/js-sdk/"
    cp "$here/messages.json" "$packages/"
    node=$packages/node_modules/.bin/node
    [[ -x $node ]] || node=node
    "$node" "$packages/js-sdk/flow.mjs" --homeserver "$homeserver" "$@"
}

which=all
case ${1-} in
    nio | js-sdk | all) which=$1 && shift ;;
    "" | --*) ;;
    *) fail "unknown client '$1': nio, js-sdk or all" ;;
esac
homeserver=
if [[ ${1-} == --homeserver ]]; then
    homeserver=${2:?"--homeserver needs a URL"}
    shift 2
fi
[[ -n $homeserver ]] || start_server

status=0
if [[ $which != js-sdk ]]; then
    echo "matrix-nio against $homeserver"
    run_nio "$@" || status=1
fi
if [[ $which != nio ]]; then
    echo "matrix-js-sdk against $homeserver"
    run_js_sdk "$@" || status=1
fi
if [[ $status != 0 && -n $work ]]; then
    echo "The last lines of the server's log:" >&2
    tail -n 50 "$work/server.log" >&2
fi
exit "$status"
