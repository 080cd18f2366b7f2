"""The tables of the PostgreSQL store: the embedded ones, with the tenant in every key and a wall between tenants.

``tenant`` is the last column of each and comes from the transaction, so a statement need not name it. Every key and index
leads with it: so a cluster can place the rows of each tenant on one of its machines.
"""

from __future__ import annotations

from typing import Any

from holdfast.errors import SchemaError, StoreError
from holdfast.store.nearest import FUNCTIONS, stand
from holdfast.store.pool import ROLE, SCHEMA

VERSION = 2

_TENANT = "tenant text COLLATE \"C\" NOT NULL DEFAULT coalesce(current_setting('holdfast.tenant', true), '')"

_TABLES = {
    "heads": f"""
        seq bigint NOT NULL DEFAULT 0, hash bytea NOT NULL DEFAULT '\\x', at bigint NOT NULL DEFAULT 0,
        changed bigint NOT NULL DEFAULT 0,
        anchored bigint NOT NULL DEFAULT 0, arrived bigint NOT NULL DEFAULT 0, {_TENANT}, PRIMARY KEY (tenant)""",
    "meta": f"""
        key text COLLATE "C" NOT NULL, value text NOT NULL, {_TENANT}, PRIMARY KEY (tenant, key)""",
    "partitions": f"""
        no bigint NOT NULL DEFAULT nextval('partition_numbers'), path text COLLATE "C" NOT NULL, next bigint NOT NULL,
        {_TENANT}, PRIMARY KEY (tenant, path)""",
    "journal": f"""
        seq bigint NOT NULL, txn bigint NOT NULL, at bigint NOT NULL, actor text NOT NULL, action text NOT NULL,
        part bigint NOT NULL, id bytea NOT NULL, version bigint NOT NULL, reason text NOT NULL, digest bytea NOT NULL,
        hash bytea NOT NULL, {_TENANT}, PRIMARY KEY (tenant, seq)""",
    "cubes": f"""
        rid bigint NOT NULL, id bytea NOT NULL, version bigint NOT NULL, seq bigint NOT NULL, known_from bigint NOT NULL,
        known_to bigint, valid_from bigint, valid_to bigint, expires_at bigint, kind text COLLATE "C" NOT NULL,
        status text COLLATE "C" NOT NULL, agent text COLLATE "C", session text COLLATE "C", author text COLLATE "C",
        source text COLLATE "C", trust double precision NOT NULL, key bytea, salt bytea NOT NULL, body text NOT NULL,
        {_TENANT}, PRIMARY KEY (tenant, rid)""",
    "links": f"""
        child bytea NOT NULL, child_version bigint NOT NULL, parent bytea NOT NULL, parent_version bigint NOT NULL,
        {_TENANT}, PRIMARY KEY (tenant, parent, child, parent_version, child_version)""",
    "uses": f"""
        id bytea NOT NULL, visits bigint NOT NULL, last_use bigint, utility double precision NOT NULL,
        uncertainty double precision NOT NULL, {_TENANT}, PRIMARY KEY (tenant, id)""",
    "tombstones": f"id bytea NOT NULL, seq bigint NOT NULL, {_TENANT}, PRIMARY KEY (tenant, id)",
    "terms": f"rid bigint NOT NULL, body bytea NOT NULL, {_TENANT}, PRIMARY KEY (tenant, rid)",
    "names": f"rid bigint NOT NULL, body bytea NOT NULL, {_TENANT}, PRIMARY KEY (tenant, rid)",
    "dates": f"rid bigint NOT NULL, body bytea NOT NULL, {_TENANT}, PRIMARY KEY (tenant, rid)",
    "jobs": f"""
        task text COLLATE "C" NOT NULL, rid bigint NOT NULL, attempts bigint NOT NULL DEFAULT 0,
        not_before bigint NOT NULL DEFAULT 0, error text, {_TENANT}, PRIMARY KEY (tenant, task, rid)""",
    "arrivals": f"""
        n bigint NOT NULL DEFAULT next_arrival(), part bigint NOT NULL, fold text NOT NULL, rids bytea NOT NULL,
        {_TENANT}, PRIMARY KEY (tenant, part, n)""",
    "files": f"""
        home text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL, data bytea NOT NULL, {_TENANT},
        PRIMARY KEY (tenant, home, name)""",
}
"""The tables of which every row is some tenant's."""

_INDEXES = (
    "CREATE INDEX journal_part ON journal (tenant, part, seq)",
    "CREATE INDEX journal_id ON journal (tenant, id, seq)",
    "CREATE UNIQUE INDEX cubes_id ON cubes (tenant, id, version)",
    "CREATE UNIQUE INDEX cubes_key ON cubes (tenant, key) WHERE key IS NOT NULL",
    "CREATE INDEX cubes_source ON cubes (tenant, source) WHERE source IS NOT NULL",
    "CREATE INDEX cubes_expiry ON cubes (tenant, expires_at) WHERE expires_at IS NOT NULL AND known_to IS NULL",
    "CREATE INDEX cubes_kind ON cubes (tenant, kind, status) WHERE known_to IS NULL",
    "CREATE INDEX links_child ON links (tenant, child)",
    "CREATE INDEX jobs_due ON jobs (tenant, task, not_before)",
)

_BY_ACTION = "CREATE INDEX IF NOT EXISTS journal_action ON journal (tenant, part, action, seq) WHERE action <> 'add'"
"""Of version 2: events of a rare kind, such as erasures."""

# What the common SQL asks of its database by names that PostgreSQL lacks. A body may hold what ``json`` refuses (an escaped
# NUL, half of a character): those escapes, and no others, are read as they are written.
_FUNCTIONS = (
    "CREATE FUNCTION instr(text, text) RETURNS integer IMMUTABLE LANGUAGE sql AS 'SELECT strpos($1, $2)'",
    r"""CREATE FUNCTION json_extract(body text, path text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
       DECLARE keys text[] := string_to_array(substr(path, 3), '.');
       BEGIN
         IF strpos(body, '\u') = 0 THEN RETURN body::json #>> keys; END IF;
         BEGIN
           RETURN body::json #>> keys;
         EXCEPTION WHEN OTHERS THEN
           body := regexp_replace(replace(body, '\\', '\/\/'),
             '\\u0000|\\ud[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..)\\ud[c-f]', '\\\&', 'g');
           RETURN replace(body, '\/\/', '\\')::json #>> keys;
         END;
       END $$""",
    """CREATE FUNCTION json_valid(body text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$
       BEGIN PERFORM json_extract(body, '$.text'); RETURN true; EXCEPTION WHEN OTHERS THEN RETURN false; END $$""",
    # Whoever writes holds the tenant's head, so numbers come in the order of commits, as whoever follows them needs it.
    """CREATE FUNCTION next_arrival() RETURNS bigint VOLATILE LANGUAGE sql AS $$
       UPDATE heads SET arrived = arrived + 1 WHERE tenant = current_setting('holdfast.tenant') RETURNING arrived $$""",
)


def walls(table: str) -> tuple[str, ...]:
    """What keeps the tenants apart in a table."""
    return (
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"CREATE POLICY own ON {table} TO {ROLE} USING (tenant = current_setting('holdfast.tenant'))",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {ROLE}",
    )


def fold_table(table: str) -> str:
    """A table of one embedding model's vectors."""
    return f"CREATE TABLE {table} (rid bigint NOT NULL, body bytea NOT NULL, {_TENANT}, PRIMARY KEY (tenant, rid))"


_WHOLE = (
    """CREATE TABLE models (
       no bigint PRIMARY KEY, name text NOT NULL UNIQUE, dimension bigint NOT NULL, active bigint NOT NULL)""",
    f"GRANT SELECT ON models TO {ROLE}",
    # What was said of the whole store's head: each entry is hashed over the one before it and over what had moved since.
    "CREATE TABLE anchors (n bigint PRIMARY KEY, seq bigint NOT NULL, moved text NOT NULL, hash bytea NOT NULL)",
    "CREATE TABLE version (version bigint NOT NULL)",
    "INSERT INTO version VALUES (0)",
    "INSERT INTO heads (tenant) VALUES ('')",
    f"CREATE POLICY store ON heads FOR SELECT TO {ROLE} USING (tenant = '')",
)


def migrate(connection: Any) -> None:
    """Make the tables where there are none, or bring them to the newest version; ``connection`` is psycopg's, out of a transaction.

    Raises SchemaError for newer tables or a schema that is not ours, and StoreError where the role of tenants cannot be taken.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('holdfast schema'))")
        found = version(connection)
        if found > VERSION:
            raise SchemaError(
                f"this store has schema {found}, and this Holdfast reads up to {VERSION}; nothing was changed. "
                "Upgrade with: pip install --upgrade holdfast"
            )
        if found == 0:
            _make(connection)
        connection.execute(f"SET LOCAL search_path = {SCHEMA}, pg_temp")
        if found < 2:
            connection.execute("SET LOCAL check_function_bodies = off")
            for statement in (*FUNCTIONS, _BY_ACTION):
                connection.execute(statement)
        if found < VERSION:
            connection.execute(f"UPDATE version SET version = {VERSION}")
        for no, dimension in connection.execute("SELECT no, dimension FROM models").fetchall():
            stand(connection, no, dimension)


def _make(connection: Any) -> None:
    """The tables as they were in version 1."""
    _role(connection)
    connection.execute(f"CREATE SCHEMA {SCHEMA}")
    connection.execute(f"GRANT USAGE ON SCHEMA {SCHEMA} TO {ROLE}")
    connection.execute(f"SET LOCAL search_path = {SCHEMA}, pg_temp")
    connection.execute("CREATE SEQUENCE partition_numbers")
    connection.execute(f"GRANT USAGE ON SEQUENCE partition_numbers TO {ROLE}")
    connection.execute("SET LOCAL check_function_bodies = off")
    for statement in _FUNCTIONS:
        connection.execute(statement)
    for table, columns in _TABLES.items():
        connection.execute(f"CREATE TABLE {table} ({columns})")
        for statement in walls(table):
            connection.execute(statement)
    for statement in (*_INDEXES, *_WHOLE):
        connection.execute(statement)


def version(connection: Any) -> int:
    """The version of a database's tables, 0 where there are none. Raises SchemaError for a schema that is not ours."""
    there = connection.execute("SELECT to_regnamespace(%s) IS NOT NULL, to_regclass(%s) IS NOT NULL",
                               (SCHEMA, f"{SCHEMA}.version")).fetchone()  # fmt: skip
    if there == (True, False):
        raise SchemaError(
            f"this database has a schema {SCHEMA!r} that is no Holdfast store; give the address of another database"
        )
    return int(connection.execute(f"SELECT version FROM {SCHEMA}.version").fetchone()[0]) if there[1] else 0


def servers(connection: Any) -> tuple[str, ...]:
    """The names of the other servers on which parts of the tables lie."""
    query = (
        "SELECT DISTINCT srvname FROM pg_inherits JOIN pg_class AS whole ON whole.oid = inhparent "
        "JOIN pg_foreign_table ON ftrelid = inhrelid JOIN pg_foreign_server AS server ON server.oid = ftserver "
        "WHERE whole.relnamespace = to_regnamespace(%s) ORDER BY srvname"
    )
    return tuple(name for (name,) in connection.execute(query, (SCHEMA,)))


def _role(connection: Any) -> None:
    from psycopg import Error

    for statement in (f"CREATE ROLE {ROLE} NOLOGIN", f"GRANT {ROLE} TO CURRENT_USER"):
        try:
            with connection.transaction():
                connection.execute(statement)
        except Error:  # it is there already, or a superuser's; whether it can be taken is what counts
            continue
    try:
        with connection.transaction():
            connection.execute(f"SET LOCAL ROLE {ROLE}")
            connection.execute("RESET ROLE")
    except Error as error:
        raise StoreError(
            f"tenants are kept apart by the role {ROLE}, which this user can neither make nor take; let an administrator run: "
            f"CREATE ROLE {ROLE} NOLOGIN; GRANT {ROLE} TO the user of the store"
        ) from error
