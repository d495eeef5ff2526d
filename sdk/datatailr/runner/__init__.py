"""What runs inside jobs: the keeper of a node's processes and the code around a user's function.

Standard library only, for Python 3.10 and later: these files are started by path
with the interpreter of the user's environment, where nothing else of the
platform may be assumed. `boot.py` is the way in. The rest of the SDK reads `state.py`,
and `binding.py`, `pickles.py` and `procs.py` where it does the same work.
"""
