"""For all tests."""

import signal

# A shell has what it runs in the background ignore interrupts, and so would all programs that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
