"""The HTTP interface: Litestar in front of ``engine.service.service``."""
