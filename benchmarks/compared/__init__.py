"""What is timed or scored beside ours: other programs, environments and ways to carry out chunks."""
