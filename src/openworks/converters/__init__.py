"""Documents to text, each in a process of its own: the libraries that read them stay in here."""
