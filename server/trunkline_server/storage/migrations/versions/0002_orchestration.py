"""Conversations, installed skills, cached answers and jobs.

Times are microseconds since 1970. An owner is an organisation, or `key:` and the id of a key that belongs to none.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

CONVERSATIONS = """
CREATE TABLE conversations (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    end_user TEXT NOT NULL,
    title TEXT NOT NULL,
    metadata TEXT NOT NULL,
    creation_key TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    messages BIGINT NOT NULL DEFAULT 0,
    size_bytes BIGINT NOT NULL DEFAULT 0,
    lease TEXT NOT NULL DEFAULT '',
    leased_until BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX conversations_by_owner ON conversations (owner, created_at);
CREATE UNIQUE INDEX conversations_by_key ON conversations (owner, creation_key) WHERE creation_key IS NOT NULL;
CREATE INDEX conversations_by_age ON conversations (updated_at);

CREATE TABLE conversation_messages (
    conversation TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    message BYTEA NOT NULL,
    completion_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (conversation, sequence)
);
"""

SKILLS = """
CREATE TABLE installed_skills (
    owner TEXT PRIMARY KEY,
    slugs TEXT NOT NULL,
    changed BIGINT NOT NULL
);
CREATE INDEX installed_skills_by_change ON installed_skills (changed);
"""

CACHE = """
CREATE TABLE cached_answers (
    key BYTEA PRIMARY KEY,
    owner TEXT NOT NULL,
    answer BYTEA NOT NULL,
    kept_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX cached_answers_by_owner ON cached_answers (owner, kept_at);
CREATE INDEX cached_answers_by_expiry ON cached_answers (expires_at);

CREATE TABLE cached_questions (
    key BYTEA PRIMARY KEY,
    owner TEXT NOT NULL,
    section BYTEA NOT NULL,
    question TEXT NOT NULL,
    vector BYTEA NOT NULL,
    kept_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX cached_questions_by_owner ON cached_questions (owner, kept_at);
CREATE INDEX cached_questions_by_section ON cached_questions (section, kept_at);
CREATE INDEX cached_questions_by_expiry ON cached_questions (expires_at);

CREATE TABLE cache_clearings (
    owner TEXT PRIMARY KEY,
    before_at BIGINT NOT NULL,
    changes BIGINT NOT NULL
);

CREATE TABLE cache_evidence (
    owner TEXT NOT NULL,
    rules TEXT NOT NULL,
    bin SMALLINT NOT NULL,
    same BIGINT NOT NULL,
    other BIGINT NOT NULL,
    PRIMARY KEY (owner, rules, bin)
);
"""

JOBS = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    key_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    spec BYTEA NOT NULL,
    metadata_json TEXT NOT NULL,
    idempotency_key TEXT,
    fingerprint BYTEA NOT NULL,
    state SMALLINT NOT NULL,
    progress SMALLINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    ended_at BIGINT,
    expires_at BIGINT NOT NULL,
    last_sequence BIGINT NOT NULL,
    event_bytes BIGINT NOT NULL DEFAULT 0,
    starts BIGINT NOT NULL DEFAULT 0,
    runner TEXT NOT NULL DEFAULT '',
    lease_until BIGINT NOT NULL,
    result BYTEA,
    error BYTEA,
    callback_url TEXT NOT NULL,
    callback_at BIGINT,
    callback_tries BIGINT NOT NULL DEFAULT 0,
    UNIQUE (owner, idempotency_key)
);
CREATE INDEX jobs_by_owner ON jobs (owner, id);
CREATE INDEX jobs_by_lease ON jobs (lease_until) WHERE ended_at IS NULL;
CREATE INDEX jobs_by_runner ON jobs (runner) WHERE ended_at IS NULL;
CREATE INDEX jobs_queued ON jobs (state) WHERE state = 1;
CREATE INDEX jobs_by_expiry ON jobs (expires_at);
CREATE INDEX jobs_callbacks ON jobs (callback_at) WHERE callback_at IS NOT NULL;

CREATE TABLE job_events (
    job_id TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    step TEXT NOT NULL,
    is_answer SMALLINT NOT NULL,
    event BYTEA NOT NULL,
    PRIMARY KEY (job_id, sequence)
);
CREATE INDEX job_answers ON job_events (job_id, step) WHERE is_answer = 1;
"""


def upgrade() -> None:
    """Make the tables."""
    for schema in (CONVERSATIONS, SKILLS, CACHE, JOBS):
        for statement in schema.split(";"):
            if statement.strip():
                op.execute(statement)


def downgrade() -> None:
    """What is in them would be lost."""
    raise NotImplementedError("conversations and jobs can't be taken back")
