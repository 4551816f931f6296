"""What the runs allow one to say."""
