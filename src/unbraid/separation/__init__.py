"""From whole recordings to chunks and back."""
