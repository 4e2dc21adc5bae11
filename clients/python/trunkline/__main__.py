"""The `trunkline` command. The command itself lives in the server package."""

import importlib.util
import sys


def main() -> int:
    """Run the command line; exit code 2 when only the client is installed."""
    if (
        importlib.util.find_spec("trunkline_server") is None
        or importlib.util.find_spec("httptools") is None
    ):
        print('the command needs the service: pip install "trunkline[server]"', file=sys.stderr)
        return 2
    from trunkline_server.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
