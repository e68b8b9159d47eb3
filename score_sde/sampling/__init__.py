"""From keys to samples, led by the host in chunks."""
