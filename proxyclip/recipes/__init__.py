"""Which settings, by name? Presets, the papers' benchmark settings, methods, proxies, qualities, licences."""
