"""What a suite still takes: states, seconds, bytes and money."""
