"""`python3 -IB /usr/local/lib/postgresql-archive SETTINGS VERB`; see the package beside it."""

import sys

from postgresql_archive.command import main

sys.exit(main(sys.argv[1], sys.argv[2:]))
