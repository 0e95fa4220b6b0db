"""`python -I -S tether.py PARENT SIGNAL COMMAND...`: become COMMAND, and get SIGNAL when the process PARENT dies.

The kernel keeps the wish over exec (PR_SET_PDEATHSIG), so a supervisor that is killed takes its children with it.
It is a process of its own because code between fork and exec is unsafe in a program with threads. Imports nothing
but the standard library, to start quickly.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, number, *command = sys.argv[1:]
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    # The parent may have died before the wish was made.
    if os.getppid() != int(parent):
        os.kill(os.getpid(), signal.SIGKILL)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
