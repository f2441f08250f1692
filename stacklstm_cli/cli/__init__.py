"""A person meets all this: options, messages, progress and reports.

May import every other room; nothing imports this one. Importing `options` or `messages` loads neither
torch nor pandas, so that `--help` is quick; the rest is imported where a command needs it.
"""

import os

# Intel's library of matrix products, which torch may hold, reads it when it is loaded: else it keeps for each thread
# what its products have needed, 20 MB and more. Products are as fast without.
os.environ.setdefault("MKL_DISABLE_FAST_MM", "1")
