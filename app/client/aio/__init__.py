"""The client that is awaited. `app/client/blocking` is made of these modules; change them here."""
