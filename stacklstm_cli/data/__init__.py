"""A file becomes a Panel.

`reading` turns files into a `Panel`, with the help of `opening` (bytes to tables), `table` (columns of
text and numbers), `columns` (which column plays which role), `stamps` (how time is written), `calendar`
(the step between rows) and `gridding` (rows onto the grid). `origins` cuts a panel for a backtest.
This room imports `errors` and `config` only; it never prints.
"""
