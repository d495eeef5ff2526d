"""A user's package: tasks whose every trace can be checked afterwards."""
