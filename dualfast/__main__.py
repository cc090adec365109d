"""python -m dualfast is the dualfast command."""

import sys

from dualfast.cli import main

sys.exit(main())
