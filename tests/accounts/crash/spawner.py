"""Starts services from a process that has loaded the program already, because loading it takes longer than a life.

Each service is a process of its own that runs `trunkline serve`. Commands come as lines on standard input:
`start CONFIG LOG` is answered with the process's id, and `reap ID` with how it ended, once it has. When the input ends,
so do they all.
"""

import os
import signal
import sys
import traceback

from trunkline_server.cli import main


def serve(config: str, log: str) -> None:
    """In the child. Does not return."""
    code = 1
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for number, file in enumerate((nothing, said, said)):
            os.dup2(file, number)
        code = main(["serve", "--config", config])
    except BaseException:  # noqa: BLE001 - as the interpreter does with a program
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def obey() -> None:
    """Until the input ends."""
    living: set[int] = set()
    for line in sys.stdin:
        verb, *words = line.split()
        if verb == "start":
            pid = os.fork()
            if not pid:
                serve(*words)
            living.add(pid)
            print(pid, flush=True)
        else:
            _, status = os.waitpid(int(words[0]), 0)
            living.discard(int(words[0]))
            print(os.waitstatus_to_exitcode(status), flush=True)
    for pid in living:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    obey()
