"""Two processes in wall-clock time: shared memory, the loop's clock, and the policy's process."""
