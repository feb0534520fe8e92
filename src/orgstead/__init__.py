"""orgstead: who the organizations are, who may act for them, and where their data lives."""

__version__ = "0.1.0"
