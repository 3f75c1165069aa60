"""What training takes on each device, without weights or network."""
