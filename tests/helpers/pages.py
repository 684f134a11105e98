"""Pages of the documentation."""

import re

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)  # a block: its language and its content
