#!/bin/bash
# The two roles and the database of orgstead, as a superuser of PostgreSQL, once. The owner changes the schema; the
# service's role reads and writes rows, and row-level security holds for it.
#
# Needs DATABASE_OWNER_PASSWORD and DATABASE_PASSWORD; connects as psql does by itself (PGHOST, PGUSER, …).
set -euo pipefail
: "${DATABASE_OWNER_PASSWORD:?}" "${DATABASE_PASSWORD:?}"

psql --no-psqlrc --set ON_ERROR_STOP=1 --dbname "${PGDATABASE:-postgres}" <<'SQL'
\getenv owner_password DATABASE_OWNER_PASSWORD
\getenv password DATABASE_PASSWORD
SET password_encryption = 'scram-sha-256';
SET log_statement = 'none';
CREATE ROLE orgstead_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE orgstead LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOINHERIT PASSWORD :'password';
CREATE DATABASE orgstead OWNER orgstead_owner TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C';
REVOKE ALL ON DATABASE orgstead FROM PUBLIC;
GRANT CONNECT ON DATABASE orgstead TO orgstead;
SQL

# In a container that Docker's entry point initialises, the superuser's password has served its purpose: from now on it
# is a superuser only over the socket inside the container.
if [ -n "${POSTGRES_PASSWORD:-}" ]; then
  psql --no-psqlrc --set ON_ERROR_STOP=1 --dbname postgres --command 'ALTER ROLE CURRENT_USER PASSWORD NULL'
fi
