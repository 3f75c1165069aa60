"""What training minimises: a family of objectives behind one interface, and their weighted sum."""
