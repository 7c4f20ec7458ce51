#!/usr/bin/env bash
# Runs the Complement suite against Sabha, without Docker:
#
#   run.sh [PACKAGE ...|TEST REGEX] [--clean] [--postgres] [--hs1=synapse] [--hs2=synapse] [--update]
#
# PACKAGE is csapi, fed or an msc package; without any, all run. A TEST REGEX (`TestLogin`, `TestSync/parallel`) runs in
# every package. --clean gives every test new servers; --update rewrites expected.txt and docs/conformance.md.
#
# $COMPLEMENT_TESTS is a folder with the suite's test programs, one for each package: csapi.test, fed.test, msc2836.test …
# $SABHA_BIN is the server under test (built, if unset), $RESULTS the folder for results. Needs Go for `go tool test2json`.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
cache=${SABHA_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sabha-tests}
packages=(csapi fed msc2836 msc3391 msc3757 msc3874 msc3890 msc3902 msc3930 msc3967 msc4140 msc4155 msc4222 msc4306)

fail() {
    echo "run.sh: $*" >&2
    exit 2
}

chosen=() regex= clean= update= hs1=sabha hs2= engine_options=()
for argument in "$@"; do
    case $argument in
        --clean) clean=1 ;;
        --postgres) engine_options+=(--postgres) ;;
        --hs1=*) hs1=${argument#*=} ;;
        --hs2=*) hs2=${argument#*=} ;;
        --update) update=1 ;;
        -*) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 2 ;;
        *)
            if [[ " ${packages[*]} " == *" $argument "* ]]; then chosen+=("$argument"); else regex=$argument; fi
            ;;
    esac
done
((${#chosen[@]})) || chosen=("${packages[@]}")
[[ -z $update || $hs1$hs2${engine_options[*]} == sabha ]] || fail "expectations are of Sabha alone, on SQLite"
[[ -n ${COMPLEMENT_TESTS:-} ]] || fail "set COMPLEMENT_TESTS to the folder of the suite's test programs (see README.md)"
for package in "${chosen[@]}"; do
    [[ -x $COMPLEMENT_TESTS/$package.test ]] || fail "no $COMPLEMENT_TESTS/$package.test"
done

# The suite's mock servers listen on every address of the machine. A network namespace of our own has only loopback.
if [[ -z ${SABHA_COMPLEMENT_ISOLATED:-} ]]; then
    (cd "$root" && cargo build --quiet --locked --package sabha-complement)
    export SABHA_COMPLEMENT_BIN=${CARGO_TARGET_DIR:-$root/target}/debug/sabha-complement
    if [[ -z ${SABHA_BIN:-} ]]; then
        (cd "$root" && cargo build --quiet --locked --release)
        export SABHA_BIN=${CARGO_TARGET_DIR:-$root/target}/release/sabha
    fi
    if [[ $hs1 == synapse || $hs2 == synapse ]] && [[ -z ${SYNAPSE_PYTHON:-} ]]; then
        if [[ ! -e $cache/synapse/installed ]]; then
            rm -rf "$cache/synapse"
            python3 -m venv "$cache/synapse"
            "$cache/synapse/bin/pip" install --quiet --disable-pip-version-check 'matrix-synapse[url-preview]>=1.163,<2'
            touch "$cache/synapse/installed"
        fi
        export SYNAPSE_PYTHON=$cache/synapse/bin/python
    fi
    for isolate in 'unshare --net' 'unshare --map-root-user --net'; do
        if $isolate ip link set lo up 2>/dev/null; then
            # shellcheck disable=SC2086 # words on purpose
            SABHA_COMPLEMENT_ISOLATED=1 exec $isolate "${BASH_SOURCE[0]}" "$@"
        fi
    done
    fail "no network namespaces here (unshare --net), and the suite would listen on all of this machine's addresses"
fi
ip link set lo up

results=${RESULTS:-$cache/results/$(date +%Y%m%d-%H%M%S)}
mkdir -p "$results/logs"
work=$(mktemp -d)
# PostgreSQL does not run as root, and must reach its folder in here.
chmod 711 "$work"
groups=()
# Ends everything that this script started, whatever happens. The engine ends its servers.
clean_up() {
    local group
    for group in "${groups[@]}"; do kill -- "-$group" 2>/dev/null || true; done
    wait || true
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Each job runs in a process group of its own, so that the whole group can be ended.
set -m
mkfifo "$work/address"
"$SABHA_COMPLEMENT_BIN" engine --launchers "$here/launchers" --logs "$results/logs" --work "$work/engine" \
    "${engine_options[@]}" >"$work/address" 2>"$results/engine.log" &
groups+=($!)
read -r address <"$work/address" || fail "the engine did not start: $(cat "$results/engine.log")"

cat >"$work/remember.sh" <<'SH'
#!/bin/sh
# The suite calls this with CONTAINER TEST FAILED at the end of a deployment.
echo "$1 $2" >>"$RESULTS/containers.txt"
SH
chmod +x "$work/remember.sh"

export RESULTS=$results DOCKER_HOST=tcp://$address COMPLEMENT_BASE_IMAGE=$hs1 COMPLEMENT_SPAWN_HS_TIMEOUT_SECS=30
export COMPLEMENT_POST_TEST_SCRIPT=$work/remember.sh
[[ -z $hs2 ]] || export COMPLEMENT_BASE_IMAGE_hs2=$hs2
[[ -n $clean ]] || export COMPLEMENT_ENABLE_DIRTY_RUNS=1

# Runs one package. PACKAGE.json is its output, PACKAGE.exit its status. Two tests at a time, since mock servers make
# RSA keys.
run_package() {
    local package=$1 status=0
    mkdir -p "$work/$package"
    { TMPDIR=$work/$package timeout --foreground --kill-after=10 1500 "$COMPLEMENT_TESTS/$package.test" -test.v=test2json \
        -test.timeout 20m -test.parallel 2 ${regex:+-test.run "$regex"} 2>&1 || status=$?
    echo "$status" >"$results/$package.exit"; } | go tool test2json -t -p "$package" >"$results/$package.json"
}

run_packages() {
    for package in "$@"; do run_package "$package"; done
}

# The two large packages run side by side, the small ones after the first.
first=() second=()
for package in "${chosen[@]}"; do
    if [[ $package == fed ]]; then second+=("$package"); else first+=("$package"); fi
done
started=$SECONDS
run_packages "${first[@]}" &
lanes=($!)
run_packages "${second[@]}" &
lanes+=($!)
groups+=("${lanes[@]}")
wait "${lanes[@]}"
echo "ran in $((SECONDS - started)) s; results are in $results"

options=()
[[ -z $regex ]] || options+=(--partial)
[[ -z $update ]] || options+=(--update)
status=0
"$SABHA_COMPLEMENT_BIN" compare --results "$results" --expected "$here/expected.txt" "${options[@]}" "${chosen[@]}" ||
    status=$?
if [[ -n $update ]]; then
    "$SABHA_COMPLEMENT_BIN" score --expected "$here/expected.txt" >"$root/docs/conformance.md"
fi
exit "$status"
