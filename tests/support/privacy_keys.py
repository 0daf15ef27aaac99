"""Two random keys, the same ones each time."""

import random

KEY = random.Random(7).randbytes(32)
OTHER_KEY = random.Random(8).randbytes(32)
