"""The words of the engine as types. Imports nothing of the engine."""
