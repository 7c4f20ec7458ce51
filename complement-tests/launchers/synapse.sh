#!/bin/sh
# Starts Synapse in a container of the engine, for mixed runs: see ../README.md. Runs again at every start on the same ROOT.
set -eu

"$SABHA_COMPLEMENT" certificate --ca-cert "$CA_CERT" --ca-key "$CA_KEY" --name "$SERVER_NAME" --address "$ADDRESS" \
    --cert "$ROOT/server.crt" --key "$ROOT/server.key"
# Synapse trusts either the system's authorities or a list of its own.
export SSL_CERT_FILE="$CA_CERT"
mkdir -p "$ROOT/media"
# The signing key may be any 32 bytes; it must survive restarts.
[ -e "$ROOT/signing.key" ] || printf 'ed25519 a_1 %s\n' "$(head -c 32 /dev/urandom | base64 | tr -d '=\n')" >"$ROOT/signing.key"

appservices=
for file in "$APPSERVICES"/*.yaml; do
    [ -e "$file" ] && appservices="$appservices  - $file
"
done

cat >"$ROOT/log.yaml" <<YAML
version: 1
formatters: {plain: {format: '%(asctime)s %(levelname)s %(name)s %(request)s %(message)s'}}
filters: {context: {(): synapse.logging.context.LoggingContextFilter}}
handlers: {console: {class: logging.StreamHandler, formatter: plain, filters: [context]}}
root: {level: INFO, handlers: [console]}
disable_existing_loggers: false
YAML

limit='{per_second: 9999, burst_count: 9999}'
cat >"$ROOT/homeserver.yaml" <<YAML
server_name: "$SERVER_NAME"
public_baseurl: "http://127.0.0.1:$CLIENT_PORT/"
report_stats: false
pid_file: "$ROOT/synapse.pid"
log_config: "$ROOT/log.yaml"
signing_key_path: "$ROOT/signing.key"
media_store_path: "$ROOT/media"
macaroon_secret_key: complement
form_secret: complement
registration_shared_secret: complement
enable_registration: true
enable_registration_without_verification: true
bcrypt_rounds: 4
default_room_version: "11"
trusted_key_servers: []
federation_custom_ca_list: ["$CA_CERT"]
federation_ip_range_blacklist: []
ip_range_blacklist: []
url_preview_enabled: true
url_preview_ip_range_blacklist: []
enable_room_list_search: true
allow_public_rooms_over_federation: true
allow_device_name_lookup_over_federation: true
room_list_publication_rules: [{user_id: "*", action: allow}]
server_notices: {system_mxid_localpart: _server, system_mxid_display_name: Server Alert, room_name: Server Alert}
caches: {sync_response_cache_duration: 0}
federation: {destination_min_retry_interval: 1s, destination_max_retry_interval: 10s, destination_max_short_retry_delay: 1s}
tls_certificate_path: "$ROOT/server.crt"
tls_private_key_path: "$ROOT/server.key"
database: {name: sqlite3, args: {database: "$ROOT/homeserver.db"}}
app_service_config_files:
${appservices:-  []}
listeners:
  - {port: $CLIENT_PORT, bind_addresses: ["127.0.0.1"], type: http, resources: [{names: [client, federation]}]}
  - {port: 8008, bind_addresses: ["$ADDRESS"], type: http, resources: [{names: [client, federation]}]}
  - {port: $FED_PORT, bind_addresses: ["127.0.0.1"], type: http, tls: true, resources: [{names: [client, federation]}]}
  - {port: 8448, bind_addresses: ["$ADDRESS"], type: http, tls: true, resources: [{names: [client, federation]}]}
rc_message: $limit
rc_registration: $limit
rc_login: {address: $limit, account: $limit, failed_attempts: $limit}
rc_admin_redaction: $limit
rc_joins: {local: $limit, remote: $limit}
rc_joins_per_room: $limit
rc_3pid_validation: $limit
rc_invites: {per_room: $limit, per_user: $limit, per_issuer: $limit}
rc_federation: {window_size: 1000, sleep_limit: 9999, sleep_delay: 0, reject_limit: 9999, concurrent: 9999}
rc_key_requests: $limit
rc_third_party_invite: $limit
rc_room_creation: $limit
rc_reports: $limit
federation_rr_transactions_per_room_per_second: 9999
experimental_features:
  msc3391_enabled: true
  msc3874_enabled: true
  msc3890_enabled: true
  msc3930_enabled: true
  msc4155_enabled: true
  msc4222_enabled: true
  msc4306_enabled: true
  msc2836_enabled: true
  faster_joins: true
max_event_delay_duration: 24h
YAML

exec "$SYNAPSE_PYTHON" -m synapse.app.homeserver -c "$ROOT/homeserver.yaml"
