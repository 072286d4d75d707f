"""risk_control."""
