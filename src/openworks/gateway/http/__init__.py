"""How the gateway's requests reach providers: HTTP/1.1 over connections that are used again."""
