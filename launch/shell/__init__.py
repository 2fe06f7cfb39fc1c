"""What a shell asks for while a command is typed."""
