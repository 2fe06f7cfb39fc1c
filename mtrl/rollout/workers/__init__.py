"""The worker that hosts lanes and policies, and the processes of this machine that run one each."""
