"""The task type image_processing."""
