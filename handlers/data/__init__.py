"""The task type data_processing."""
