"""A file becomes a Panel.

`reading` turns files into a `Panel` (of `panel`):

- bytes to columns: `opening` finds compression, encoding and delimiter of a path, with `blocks` of its text;
  `delimited` reads the rows, and `table` gives their columns, as `texts` or as `numbers`. `cells` says what one cell
  means.
- roles: `columns` gives each column its role by a `sample` of the rows; `ids` finds those that tell series apart,
  `split` a time that stands in several. `loading` reads the columns that have a role.
- time: `timing` settles how it is written (`stamps` finds a `timeform`, which reads and writes by `patterns`), by which
  clock (`zones`) and in which step (`calendar`, `stepping`).
- the grid: `gridding` puts the rows onto it, `covariates` what stands beside them.

`origins` cuts a panel for a backtest; `wording` shows cells and names in messages.
This room imports `errors` and `config` only; it never prints.
"""
