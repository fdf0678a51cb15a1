"""`python3 -IB /usr/local/lib/certificates VERB SETTINGS`; see the package beside this file."""

import sys

from certificates.command import main

sys.exit(main())
