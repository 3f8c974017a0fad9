"""Words that every layer shares: errors, ids, time, pages. Standard library only."""
