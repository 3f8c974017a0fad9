"""Routes of the Cloudflare API: the control plane of the AI Gateway."""
