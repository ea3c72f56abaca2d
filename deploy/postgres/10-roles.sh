#!/bin/sh
# Runs once, when the database is new. It creates a role for each service, which owns the schemas that it creates and can't read
# others. No service is a superuser, and no other role may connect.
set -eu
for service in order payment; do
	variable=$(echo "$service" | tr '[:lower:]' '[:upper:]')_DB_PASSWORD
	eval "password=\$$variable"
	psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
		-v role="$service" -v password="$password" -v database="$POSTGRES_DB" <<-'SQL'
			CREATE ROLE :"role" LOGIN PASSWORD :'password' NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
			REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
			GRANT CONNECT, CREATE, TEMPORARY ON DATABASE :"database" TO :"role";
		SQL
done
