"""The commands as typed, one file a group; heavy imports stand inside each command."""
