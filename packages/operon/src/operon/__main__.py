"""`python -m operon`: the command line."""

import sys

from operon.cli import main

sys.exit(main())
