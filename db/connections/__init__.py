"""How connections fare: what an error of the database means, who waits for one, who keeps one too long."""
