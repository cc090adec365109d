"""The dualfast command, and python -m dualfast: Ctrl-C is watched before anything large is imported."""

import os
import sys
from contextlib import suppress

from dualfast.interrupts import EXIT_CODE, interruptible


def main() -> int:
    def run() -> int:
        from dualfast.cli import main

        return main()

    code = interruptible(run)
    if code == EXIT_CODE:  # not through the interpreter's own end, which may wait for threads
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
