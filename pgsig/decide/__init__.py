"""The pure core: what follows from signals. Nothing here does I/O, reads a clock or draws a random number; a test is a table of values.

match → which rules are interested in a signal. advance → what it does to one rule's state, and whether the rule fires. decide → both for a
batch, with the order of things. plan → what an order means for an operator, given what is alive. explain → all of it in words.
"""
