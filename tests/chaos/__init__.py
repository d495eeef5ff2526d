"""Real processes, random work and random faults, checked by an oracle that knows what must come out."""
