"""The supervisor's side of the trust boundary: watches one run, decides why it ended, harvests its files."""
