"""`python -m fastfeed.lab`: the venue's process, without the command line's extra packages."""

import sys

from fastfeed.lab.process import main

sys.exit(main())
