"""For development: the whole service on embedded servers, the demonstration, the benchmarks. Not in the image."""
