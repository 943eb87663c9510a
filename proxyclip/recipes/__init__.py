"""Which settings, by name? Presets, papers' settings, proxies, qualities and licences, as data."""
