"""A network becomes a good one: the one training loop, and choosing, judging and refitting by it.

Imports: errors, config, data, model and evaluation. Prints nothing; tells what happens through callables.
"""
