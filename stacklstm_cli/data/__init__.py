"""A file becomes a Panel.

`reading` turns files into a `Panel`, with the help of `table` (bytes to columns), `columns` (which
column plays which role), `calendar` (the step between rows) and `stamps` (how time is written).
This room imports `errors` and `config` only; it never prints.
"""
