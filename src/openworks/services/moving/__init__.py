"""Moving house: assistants, threads and conversations as JSON, in and out."""
