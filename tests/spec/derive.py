#!/usr/bin/env python3
"""Derives test data from the OpenAPI of the Matrix specification.

    python3 tests/spec/derive.py client-server.json server-server.json

The inputs are https://spec.matrix.org/v1.19/client-server-api/api.json and
https://spec.matrix.org/v1.19/server-server-api/api.json. Written next to this script:

- `client-server.json`, `server-server.json`: per endpoint and status, the shape of the response body;
- `endpoints.tsv`: every endpoint with its module, its authentication, and whether it is deprecated.

Only machine facts are copied: paths, field names, types, required fields, short identifiers.
An unknown keyword stops the script, so that nothing is added or lost unseen.

A shape is JSON Schema, made smaller:

- `prefix`: the string starts with one of these (the specification's `pattern` has no other use);
- `keys`: the shapes of `patternProperties`, by the prefix of the key;
- `allOf` is merged into one shape wherever the members agree;
- an integer is always an int64, so that `format` is kept for strings only;
- a status is `null` if no body is described, and `{"media": […]}` when the body is not JSON.
"""

import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
METHODS = {"get", "put", "post", "delete", "head", "patch"}
KEPT = {"type", "enum", "const", "format", "minItems", "maxItems", "minProperties", "maxProperties"}
DROPPED = {
    "title", "description", "example", "examples", "default", "deprecated", "$schema",
    "x-addedInMatrixVersion", "x-changedInMatrixVersion", "x-pattern-format",
}
NESTED = {"properties", "patternProperties", "additionalProperties", "items", "allOf", "anyOf", "oneOf",
          "required", "pattern", "$ref"}
IDENTIFIER = re.compile(r"[A-Za-z0-9_.\-]{1,64}")

AUTH = {
    "accessTokenBearer": "access token",
    "accessToken": "access token",
    "appserviceAccessTokenBearer": "appservice token",
    "signedRequest": "signed request",
}

# Mistakes of the OpenAPI about authentication: the API of an endpoint decides who can call it.
AUTH_MISTAKES = {
    # Called by clients, and its description allows unauthenticated access.
    "GET /_matrix/client/v1/room_summary/{roomIdOrAlias}": "optional access token",
    # Called by servers, which have no access tokens.
    "GET /_matrix/federation/v1/timestamp_to_event/{roomId}": "signed request",
}

# The server-server API has almost no tags. These are the sections of its text, by the start of the path.
SECTIONS = [
    ("/.well-known/matrix/", "Server discovery"),
    ("/_matrix/key/", "Server keys"),
    ("/_matrix/policy/", "Policy servers"),
    ("/_matrix/federation/*/version", "Server discovery"),
    ("/_matrix/federation/*/send/", "Transactions"),
    ("/_matrix/federation/*/event_auth/", "PDUs"),
    ("/_matrix/federation/*/backfill/", "Backfilling"),
    ("/_matrix/federation/*/get_missing_events/", "Backfilling"),
    ("/_matrix/federation/*/event/", "Retrieving events"),
    ("/_matrix/federation/*/state", "Retrieving events"),
    ("/_matrix/federation/*/timestamp_to_event/", "Retrieving events"),
    ("/_matrix/federation/*/make_join/", "Joining rooms"),
    ("/_matrix/federation/*/send_join/", "Joining rooms"),
    ("/_matrix/federation/*/make_knock/", "Knocking"),
    ("/_matrix/federation/*/send_knock/", "Knocking"),
    ("/_matrix/federation/*/invite/", "Inviting"),
    ("/_matrix/federation/*/make_leave/", "Leaving rooms"),
    ("/_matrix/federation/*/send_leave/", "Leaving rooms"),
    ("/_matrix/federation/*/3pid/", "Third-party invites"),
    ("/_matrix/federation/*/exchange_third_party_invite/", "Third-party invites"),
    ("/_matrix/federation/*/publicRooms", "Published room directory"),
    ("/_matrix/federation/*/query", "Queries"),
    ("/_matrix/federation/*/openid/", "OpenID"),
    ("/_matrix/federation/*/user/", "End-to-end encryption"),
    ("/_matrix/client/", "Server administration"),
    ("/_matrix/media/", "Media"),
]


class Schemas:
    """Makes shapes from the schemas of one document."""

    def __init__(self, document):
        self.document = document

    def shape(self, schema, resolving=()):
        if isinstance(schema, bool):
            return {} if schema else False
        unknown = schema.keys() - KEPT - DROPPED - NESTED
        if unknown:
            sys.exit(f"unknown keywords {sorted(unknown)} in {json.dumps(schema)[:200]}")
        if "$ref" in schema:
            return self.referred(schema["$ref"], resolving)

        own = {key: schema[key] for key in KEPT & schema.keys()}
        if own.get("type") in ("integer", "number"):
            own.pop("format", None)
        if isinstance(own.get("type"), list):
            own["type"] = sorted(own["type"])
        for value in [*own.get("enum", []), *([own["const"]] if "const" in own else [])]:
            if isinstance(value, str) and not IDENTIFIER.fullmatch(value):
                sys.exit(f"not an identifier: {value!r}")
        if "pattern" in schema:
            own["prefix"] = prefixes(schema["pattern"])
        if schema.get("required"):
            own["required"] = sorted(schema["required"])
        if schema.get("properties"):
            own["properties"] = {
                name: self.shape(inner, resolving) for name, inner in schema["properties"].items()
            }
        if schema.get("patternProperties"):
            own["keys"] = {
                prefix: self.shape(inner, resolving)
                for pattern, inner in schema["patternProperties"].items()
                for prefix in prefixes(pattern)
            }
        for key in ("items", "additionalProperties"):
            inner = self.shape(schema[key], resolving) if key in schema else {}
            if inner != {}:
                own[key] = inner
        for key in ("anyOf", "oneOf"):
            if key in schema:
                own[key] = [self.shape(inner, resolving) for inner in schema[key]]

        apart = []
        for inner in schema.get("allOf", []):
            inner = self.shape(inner, resolving)
            merged = merge(own, inner)
            if merged is None:
                apart.append(inner)
            else:
                own = merged
        if apart:
            own["allOf"] = own.get("allOf", []) + apart
        return own

    def referred(self, ref, resolving):
        # A shape that contains itself is cut at its second occurrence: anything is allowed below that.
        if ref in resolving:
            return {}
        if not ref.startswith("#/"):
            sys.exit(f"not a reference into this document: {ref}")
        target = self.document
        for part in ref[2:].split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        return self.shape(target, (*resolving, ref))


def prefixes(pattern):
    """Returns the prefixes that a pattern such as `^turns?:` allows."""
    character = r"(?:\\([^A-Za-z0-9])|([A-Za-z0-9:@#!_/-]))(\??)"
    if not re.fullmatch(rf"\^(?:{character})+", pattern):
        sys.exit(f"a pattern that is more than a prefix: {pattern}")
    found = [""]
    for escaped, plain, optional in re.findall(character, pattern[1:]):
        longer = [start + (escaped or plain) for start in found]
        found = found + longer if optional else longer
    return sorted(found)


def merge(a, b):
    """Returns one shape with the rules of both, or None if they cannot simply be put together."""
    if not isinstance(a, dict) or not isinstance(b, dict):
        return None
    # Rules for all other fields depend on the fields that the same shape names.
    others = {"additionalProperties", "keys"}
    fields = {"properties", "required", *others}
    if a != b and others & (a.keys() | b.keys()) and fields & a.keys() and fields & b.keys():
        return None
    merged = {**a, **b}
    for key in a.keys() & b.keys():
        if a[key] == b[key]:
            continue
        if key == "required":
            merged[key] = sorted({*a[key], *b[key]})
        elif key == "properties":
            merged[key] = {**a[key], **b[key]}
            for name in a[key].keys() & b[key].keys():
                merged[key][name] = merge(a[key][name], b[key][name])
                if merged[key][name] is None:
                    return None
        else:
            return None
    return merged


def responses(schemas, operation):
    found = {}
    for status, response in operation["responses"].items():
        content = response.get("content")
        if not content:
            found[status] = None
        elif "application/json" in content:
            found[status] = schemas.shape(content["application/json"].get("schema", {}))
        else:
            found[status] = {"media": sorted(content)}
    return found


def either(a, b):
    """Returns the responses of two operations on one path (the OpenAPI tells them apart by a space)."""
    found = {**a, **b}
    for status in a.keys() & b.keys():
        if a[status] != b[status]:
            found[status] = {"anyOf": [a[status], b[status]]}
    return found


def auth(endpoint, operation):
    if endpoint in AUTH_MISTAKES:
        return AUTH_MISTAKES[endpoint]
    schemes = operation.get("security") or []
    names = sorted({AUTH[name] for scheme in schemes for name in scheme})
    if not names:
        return "none"
    return "optional " + names[0] if {} in schemes else " and ".join(names)


def module(path, operation):
    if operation.get("tags"):
        return operation["tags"][0]
    for start, section in SECTIONS:
        if re.match(re.escape(start).replace(r"\*", "v[0-9]+"), path):
            return section
    sys.exit(f"no section for {path}")


def derive(api, source):
    document = json.loads(pathlib.Path(source).read_text())
    schemas = Schemas(document)
    shapes, rows = {}, {}
    for raw, operations in sorted(document["paths"].items()):
        path = raw.strip()
        for method, operation in sorted(operations.items()):
            if method not in METHODS:
                sys.exit(f"unknown method {method} at {path}")
            endpoint = f"{method.upper()} {path}"
            found = responses(schemas, operation)
            shapes[endpoint] = either(shapes[endpoint], found) if endpoint in shapes else found
            status = "deprecated" if operation.get("deprecated") else "stable"
            # If two operations share a path, the stable one decides.
            if endpoint not in rows or status == "stable":
                rows[endpoint] = (
                    api, module(path, operation), path, method.upper(), status, auth(endpoint, operation),
                )

    lines = [
        f"{json.dumps(endpoint)}:{json.dumps(shapes[endpoint], sort_keys=True, separators=(',', ':'))}"
        for endpoint in sorted(shapes, key=lambda endpoint: endpoint.split(" ")[::-1])
    ]
    version = json.dumps(document["info"]["version"])
    text = f'{{"version":{version},"endpoints":{{\n' + ",\n".join(lines) + "\n}}\n"
    json.loads(text)
    (HERE / f"{api}.json").write_text(text)
    return sorted(rows.values())


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    rows = derive("client-server", sys.argv[1]) + derive("server-server", sys.argv[2])
    header = ("api", "module", "path", "method", "status", "auth")
    (HERE / "endpoints.tsv").write_text("".join("\t".join(row) + "\n" for row in [header, *rows]))


if __name__ == "__main__":
    main()
