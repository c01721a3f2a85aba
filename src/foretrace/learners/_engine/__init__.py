"""What learners share: the window, the block and the past."""
