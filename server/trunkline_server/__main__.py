"""`python -m trunkline_server`."""

import sys

from trunkline_server.cli import main

if __name__ == "__main__":
    sys.exit(main())
