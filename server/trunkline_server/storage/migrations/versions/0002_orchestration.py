"""Conversations, installed skills, cached answers and jobs.

Times are microseconds since 1970. An owner is an organisation, or `key:` and the id of a key that belongs to none.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

CONVERSATIONS = """
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
