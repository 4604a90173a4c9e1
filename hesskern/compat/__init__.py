"""The calls of other libraries, with the same arguments and results, but exact and without a backward pass.

Each module has the name of the module that it replaces. A module is loaded only when you import it.
"""
