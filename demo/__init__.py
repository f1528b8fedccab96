"""The whole loop on one machine, played by a user who has nothing but AWS APIs."""

import sys

OLDEST = (3, 11)

# Here, and not in the programs: their own imports are more than an old Python can read.
if sys.version_info < OLDEST:
    version = ".".join(map(str, sys.version_info[:3]))
    sys.exit(f"error: this needs Python {OLDEST[0]}.{OLDEST[1]} or newer, and this is {version}")
