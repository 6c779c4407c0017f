"""The work itself, inside the sandbox. Knows neither engine nor sandbox; see README.md beside this file."""
