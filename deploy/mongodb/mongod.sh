#!/bin/bash
# MongoDB as a replica set with authentication: its members prove themselves with a key, which the owner's password is.
set -euo pipefail
: "${MONGO_INITDB_ROOT_PASSWORD:?}" "${DATABASE_PASSWORD:?}"

umask 077
printf '%s' "$MONGO_INITDB_ROOT_PASSWORD" >/tmp/replica-set.key
exec docker-entrypoint.sh mongod --replSet orgstead --keyFile /tmp/replica-set.key --bind_ip_all
