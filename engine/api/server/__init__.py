"""Listens: uvicorn, its connection limits, the start and the end of the API process."""
