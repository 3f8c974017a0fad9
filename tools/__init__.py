"""Programs for who works on openworks; no part of the package."""
