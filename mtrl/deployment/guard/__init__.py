"""What a robot may be commanded: the limits of a site and of a task, and the guard that enforces them."""
