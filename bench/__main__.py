"""`python -m bench`: makes the database when it is not there, then runs the benchmarks."""

import sys

from bench.run import main

sys.exit(main())
