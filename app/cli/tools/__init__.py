"""What the commands share: the service they talk to, the calls they make, and how they print."""
