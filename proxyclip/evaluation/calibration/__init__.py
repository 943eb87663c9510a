"""How far can a confidence be trusted? Thresholds, reliability and temperature from a small labelled sample."""
