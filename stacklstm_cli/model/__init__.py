"""A Panel becomes numbers: windows, the recurrent network, and the model file.

Imports: errors, config, files and data. `header.py` alone reads what `inspect` shows and imports nothing
but the standard library and this package's `errors` and `files`.
"""
