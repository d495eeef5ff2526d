"""Ships what user processes and builds wrote, from files, whatever happens to the connection."""
