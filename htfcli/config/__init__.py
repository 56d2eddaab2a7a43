"""Configuration classes: what a command can be told, checked before any work starts; one class a command."""
