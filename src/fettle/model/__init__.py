"""Base models and adapters: found, loaded, wrapped, saved."""
