"""What ends a row's life: `expiry` deletes jobs past their time, `chores` says whose turn it is to look."""
