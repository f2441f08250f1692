"""A person meets all this: options, messages, progress and reports.

May import every other room; nothing imports this one. Importing `options` or `messages` loads neither
torch nor pandas, so that `--help` is quick; the rest is imported where a command needs it.
"""
