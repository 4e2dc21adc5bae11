"""Keys, credits, the ledger, usage, idempotency, budgets, alerts and the audit log.

Times are microseconds since 1970 and amounts nanos of a US dollar, both whole numbers of 64 bits. The statements are in
the part of SQL that SQLite and PostgreSQL share: SQLite takes any name for a type, and BYTEA columns hold its blobs.
"""

from alembic import op

revision = "0001"
down_revision = None

SCHEMA = """
CREATE TABLE accounts (
    organization TEXT PRIMARY KEY,
    available BIGINT NOT NULL DEFAULT 0 CHECK (available >= 0),
    held BIGINT NOT NULL DEFAULT 0 CHECK (held >= 0),
    entries BIGINT NOT NULL DEFAULT 0,
    updated_at BIGINT NOT NULL
);

CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    organization TEXT NOT NULL,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    plan TEXT NOT NULL,
    scopes TEXT NOT NULL,
    secret_hash BYTEA NOT NULL,
    former_hash BYTEA,
    former_until BIGINT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    last_used_at BIGINT
);
CREATE INDEX keys_by_organization ON keys (organization, id);

CREATE TABLE generations (
    name TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO generations (name, value) VALUES ('keys', 0);

CREATE TABLE instances (
    id TEXT PRIMARY KEY,
    heartbeat_at BIGINT NOT NULL
);

CREATE TABLE requests (
    id TEXT PRIMARY KEY,
    request_id TEXT NOT NULL,
    organization TEXT NOT NULL,
    project TEXT NOT NULL,
    key_id TEXT NOT NULL,
    state SMALLINT NOT NULL,
    owner TEXT NOT NULL,
    is_prepaid SMALLINT NOT NULL,
    held BIGINT NOT NULL,
    reserved BIGINT NOT NULL,
    budgets TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    input_price BIGINT,
    output_price BIGINT,
    cached_input_price BIGINT,
    prompt_tokens BIGINT NOT NULL,
    settled_at BIGINT,
    cost BIGINT,
    charged BIGINT NOT NULL DEFAULT 0,
    input_tokens BIGINT NOT NULL DEFAULT 0,
    output_tokens BIGINT NOT NULL DEFAULT 0,
    cached_input_tokens BIGINT NOT NULL DEFAULT 0,
    is_estimated SMALLINT NOT NULL DEFAULT 0,
    is_cached SMALLINT NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    route TEXT NOT NULL,
    mode TEXT NOT NULL,
    end_user TEXT NOT NULL,
    session TEXT NOT NULL
);
CREATE INDEX requests_open ON requests (owner) WHERE state = 0;
CREATE INDEX requests_by_organization ON requests (organization, created_at);

CREATE TABLE request_labels (
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (id, name)
);

CREATE TABLE entries (
    organization TEXT NOT NULL,
    number BIGINT NOT NULL,
    kind SMALLINT NOT NULL,
    counter TEXT NOT NULL,
    amount BIGINT NOT NULL,
    balance_after BIGINT NOT NULL,
    request_id TEXT NOT NULL,
    operation_id TEXT UNIQUE,
    description TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (organization, number)
);

CREATE TABLE idempotency (
    organization TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BYTEA NOT NULL,
    state SMALLINT NOT NULL,
    id TEXT NOT NULL,
    response BYTEA,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (organization, key)
);
CREATE INDEX idempotency_by_expiry ON idempotency (expires_at);

CREATE TABLE budget_periods (
    budget TEXT NOT NULL,
    starts_at BIGINT NOT NULL,
    reserved BIGINT NOT NULL DEFAULT 0,
    spent BIGINT NOT NULL DEFAULT 0,
    warned SMALLINT NOT NULL DEFAULT 0,
    PRIMARY KEY (budget, starts_at)
);

CREATE TABLE alerts (
    id TEXT PRIMARY KEY,
    body TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    next_at BIGINT NOT NULL,
    tries BIGINT NOT NULL DEFAULT 0,
    delivered_at BIGINT
);
CREATE INDEX alerts_due ON alerts (next_at) WHERE delivered_at IS NULL;

CREATE TABLE audit (
    sequence BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    action TEXT NOT NULL,
    actor TEXT NOT NULL,
    organization TEXT NOT NULL,
    entity_type TEXT NOT NULL,
    entity_id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    details TEXT NOT NULL,
    commitment BYTEA,
    previous_hash BYTEA NOT NULL,
    hash BYTEA NOT NULL
);
CREATE INDEX audit_by_organization ON audit (organization, sequence);

CREATE TABLE audit_head (
    id SMALLINT PRIMARY KEY,
    sequence BIGINT NOT NULL,
    hash BYTEA NOT NULL
);

CREATE TABLE audit_private (
    sequence BIGINT PRIMARY KEY,
    salt BYTEA NOT NULL,
    content TEXT NOT NULL
);

CREATE TABLE audit_checkpoints (
    sequence BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    key_id TEXT NOT NULL,
    signature BYTEA NOT NULL
);
"""


def upgrade() -> None:
    """Make the tables."""
    for statement in SCHEMA.split(";"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """There is nothing before it."""
    raise NotImplementedError("the first version can't be taken back")
