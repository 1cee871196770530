"""The only room that asks about the machine."""
