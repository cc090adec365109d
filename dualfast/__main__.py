"""python -m dualfast: the same as the dualfast command."""

import sys

from dualfast.cli import main

sys.exit(main())
