"""Notes who ran, and of which release: a hook on the host, and a timer.

python note.py FILE
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

release = Path.cwd().resolve().parent.name
with Path(os.environ["STATE_DIRECTORY"], sys.argv[1]).open("a") as notes:
    notes.write(f"{release} {os.environ.get('STAGE', '-')}\n")
