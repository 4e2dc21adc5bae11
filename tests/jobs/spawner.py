"""As `tests.accounts.crash.spawner`, with the library of jobs loaded too."""

import dbos  # noqa: F401

from tests.accounts.crash.spawner import obey

if __name__ == "__main__":
    obey()
