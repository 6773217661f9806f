"""What people and machines read. Reports only read verdicts."""
