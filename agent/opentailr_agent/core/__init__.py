"""The agent's decisions: pure, synchronous, driven by events.

`step(state, event, now)` changes the state and returns effects; nothing here reads a clock,
draws a random number, touches a file or knows the wire.
"""
