"""The commands that a person types. No rule of the service lives here."""
