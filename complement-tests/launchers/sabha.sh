#!/bin/sh
# Starts Sabha in a container of the engine: see ../README.md for the variables. Runs again at every start on the same ROOT.
set -eu

mkdir -p "$ROOT/data"
"$SABHA_COMPLEMENT" certificate --ca-cert "$CA_CERT" --ca-key "$CA_KEY" --name "$SERVER_NAME" --address "$ADDRESS" \
    --cert "$ROOT/server.crt" --key "$ROOT/server.key"

appservices=
for file in "$APPSERVICES"/*.yaml; do
    [ ! -e "$file" ] || appservices="$appservices\"$file\", "
done
hosts=
for host in $HOSTS; do
    hosts="$hosts${hosts:+, }\"${host%%=*}\" = \"${host#*=}\""
done

cat >"$ROOT/sabha.toml" <<TOML
server_name = "$SERVER_NAME"
data_dir = "$ROOT/data"

[database]
url = "${DATABASE_URL:-sqlite:$ROOT/sabha.db}"
# The engine deletes all data after a run, so it need not survive a power cut.
durability = "process"
readers = 2

[[listeners]]
address = "127.0.0.1:$CLIENT_PORT"

[[listeners]]
address = "$ADDRESS:8008"

[[listeners]]
address = "127.0.0.1:$FED_PORT"
tls = { certificate = "$ROOT/server.crt", key = "$ROOT/server.key" }

[[listeners]]
address = "$ADDRESS:8448"
tls = { certificate = "$ROOT/server.crt", key = "$ROOT/server.key" }

[metrics]
enabled = false

[registration]
mode = "open"
shared_secret = "complement"

[appservices]
files = [$appservices]

[federation]
enabled = true
ca_files = ["$CA_CERT"]

# The suite's servers are all on loopback.
[outbound]
deny = []
hosts = { $hosts }

[rooms]
# The suite expects that creators have power level 100. They do not have it in room version 12.
default_version = "11"

[rate_limits]
enabled = false

[log]
filter = "${SABHA_LOG:-info,sabha=debug}"
TOML

# Variables that begin with SABHA_ would be read as configuration keys; these belong to the launcher and `run.sh`.
bin=$SABHA_BIN
unset SABHA_BIN SABHA_COMPLEMENT SABHA_COMPLEMENT_BIN SABHA_COMPLEMENT_ISOLATED SABHA_LOG
exec "$bin" -c "$ROOT/sabha.toml"
