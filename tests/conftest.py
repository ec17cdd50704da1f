"""What holds for every test."""

import signal

# A shell starts background jobs with interrupts ignored, and children inherit that: tests that interrupt would wait.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
