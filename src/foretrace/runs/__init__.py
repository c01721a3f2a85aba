"""A process and a disk: the run folder, its lock and checkpoints, stop signals, writers and progress.

Nothing but `checkpoint` is imported here, so that `ft.save` and `ft.load` cost no more than they need.
"""
