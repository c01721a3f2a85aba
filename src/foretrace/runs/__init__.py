"""What outlives the process? The run folder, its lock and checkpoints, stop signals, writers, progress.

Nothing but `checkpoint` is imported here, so that `ft.save` and `ft.load` cost no more than they need.
"""
