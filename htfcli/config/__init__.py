"""Configuration classes: the settings of each command, checked before any work starts; one class per command."""
